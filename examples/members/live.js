const show = (id, text) => { document.getElementById(id).textContent = text; };

const events = new EventSource("/members/events");
events.onmessage = (event) => show("devices", event.data);

let socket;
const open = (isAgain) => {
  socket = new WebSocket("/members/talk");
  let wasOpen = false;
  socket.onopen = () => { wasOpen = true; show("socket", "open"); };
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.getElementById("said").append(line);
  };
  socket.onclose = (event) => {
    if (isAgain && !wasOpen) {
      show("socket", document.getElementById("socket").textContent + "; refused");
      return;
    }
    show("socket", `closed with ${event.code}: ${event.reason}`);
    open(true);
  };
};
open(false);

document.getElementById("talk").onsubmit = (event) => {
  event.preventDefault();
  socket.send(event.target.elements.text.value);
  event.target.reset();
};
