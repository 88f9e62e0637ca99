// Reads /metrics once a second and draws the change of each counter.
const SECONDS = 120;
const figures = [...document.querySelectorAll("figure")].map((element) => ({
    element,
    ...element.dataset,
    values: [],
}));
const state = document.getElementById("state");
let before;

// The sum of the series that match `name{label="value"}`.
function sum(text, selector) {
    const [name, label] = selector.replace(/}$/, "").split("{");
    return text.split("\n").reduce((sum, line) => {
        const [, series, labels = "", value] = line.match(/^([^\s{#]+)(?:{(.*)})? (\S+)$/) ?? [];
        return series === name && labels.includes(label ?? "") ? sum + Number(value) : sum;
    }, 0);
}

// `null` if there were no events, so there is no mean.
function growth({ of, per, factor }, now) {
    const grown = sum(now.text, of) - sum(before.text, of);
    const by = per
        ? sum(now.text, per) - sum(before.text, per)
        : (now.at - before.at) / 1000;
    return by > 0 ? (grown / by) * factor : null;
}

function draw({ element, unit, values }) {
    const last = values.at(-1);
    const digits = last !== null && last < 10 ? 2 : 0;
    element.querySelector(".value").textContent = last === null ? "–" : last.toFixed(digits);
    element.querySelector(".unit").textContent = unit;
    const top = Math.max(1e-9, ...values);
    const points = values
        .map((value, at) => [120 - values.length + at + 1, 31 - ((value ?? 0) / top) * 30])
        .map((point) => point.map((number) => number.toFixed(1)).join());
    element.querySelector("polyline").setAttribute("points", points.join(" "));
}

async function look() {
    try {
        const response = await fetch("/metrics");
        const now = { text: await response.text(), at: performance.now() };
        for (const figure of before ? figures : []) {
            figure.values = [...figure.values, growth(figure, now)].slice(-SECONDS);
            draw(figure);
        }
        before = now;
        state.textContent = "Now, and the last two minutes.";
    } catch {
        state.textContent = "The site does not respond.";
    }
}

look();
setInterval(look, 1000);
