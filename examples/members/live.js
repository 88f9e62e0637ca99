const show = (id, text) => { document.getElementById(id).textContent = text; };

// Opens it again and again until the user is signed out. `open` resolves when it has closed, to
// whether it was open.
const keepOpen = async (open) => {
  for (let pause = 5; ; pause = Math.min(2 * pause, 60)) {
    if (await open()) pause = 5;
    // After a sign-in in another tab, the new cookie may be on its way for 5 seconds.
    await new Promise((done) => setTimeout(done, 1000 * (pause + Math.random())));
    const response = await fetch("/members/live", { redirect: "manual" }).catch(() => undefined);
    // To the sign-in. Any other failure may pass, such as a database that is away.
    if (response?.type === "opaqueredirect") return;
  }
};

const events = () => new Promise((closed) => {
  const source = new EventSource("/members/events");
  let wasOpen = false;
  source.onopen = () => { wasOpen = true; };
  source.onmessage = (event) => show("devices", event.data);
  // It would try again by itself, but never after a refusal.
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
