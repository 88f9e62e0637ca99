const show = (id, text) => { document.getElementById(id).textContent = text; };

// Opens a stream again each time it closes, until the user is signed out. `open` resolves when the
// stream has closed, to whether it was open before.
const keepOpen = async (open) => {
  for (let pause = 5; ; pause = Math.min(2 * pause, 60)) {
    if (await open()) pause = 5;
    // After a login in another tab, the new cookie can take up to 5 seconds to arrive.
    await new Promise((done) => setTimeout(done, 1000 * (pause + Math.random())));
    const response = await fetch("/members/live", { redirect: "manual" }).catch(() => undefined);
    // A redirect to the login. Other failures are temporary, such as a database outage.
    if (response?.type === "opaqueredirect") return;
  }
};

const events = () => new Promise((closed) => {
  const source = new EventSource("/members/events");
  let wasOpen = false;
  source.onopen = () => { wasOpen = true; };
  source.onmessage = (event) => show("devices", event.data);
  // EventSource reconnects by itself, but not after an error response.
  source.onerror = () => { source.close(); closed(wasOpen); };
});
keepOpen(events);

let socket;
let state = "opening";
const talk = () => new Promise((closed) => {
  socket = new WebSocket("/members/talk");
  let wasOpen = false;
  socket.onopen = () => { wasOpen = true; show("socket", "open"); };
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.getElementById("said").append(line);
  };
  socket.onclose = (event) => {
    if (wasOpen) state = `closed with ${event.code}: ${event.reason}`;
    show("socket", state);
    closed(wasOpen);
  };
});
keepOpen(talk).then(() => show("socket", `${state}; signed out`));

document.getElementById("talk").onsubmit = (event) => {
  event.preventDefault();
  socket.send(event.target.elements.text.value);
  event.target.reset();
};
