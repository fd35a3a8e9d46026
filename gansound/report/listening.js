"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("test");
  const key = () => JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(data.key), (c) => c.charCodeAt(0))));
  const store = "gansound-listening-" + data.id;
  const tests = { mushra: "Rate", abx: "Which is X?" };
  const scale = ["bad", "poor", "fair", "good", "excellent"];

  // What this listener has done: kept in the browser, so that a closed window loses nothing.
  let state = load() || { listener: "", at: -1, order: [], answers: {} };

  function load() {
    try { return JSON.parse(localStorage.getItem(store)); } catch { return null; }
  }
  function keep() {
    try { localStorage.setItem(store, JSON.stringify(state)); } catch { /* private windows have no store */ }
  }
  function shuffled(values) {
    const out = [...values];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // One sound at a time; another of the same trial goes on where the first was, as one compares.
  const player = { audio: null, button: null, cache: {} };
  function stop() {
    if (!player.audio) return;
    player.audio.pause();
    player.button.setAttribute("aria-pressed", "false");
    player.audio = player.button = null;
  }
  function play(name, button) {
    const again = player.button === button;
    const from = player.audio ? player.audio.currentTime : 0;
    stop();
    if (again) return;
    const audio = (player.cache[name] ||= new Audio(`sounds/${name}.flac`));
    audio.currentTime = from < (audio.duration || Infinity) - 0.05 ? from : 0;
    audio.onended = () => { if (player.audio === audio) stop(); };
    audio.onerror = () => { button.textContent = "can't be played"; };
    player.audio = audio;
    player.button = button;
    button.setAttribute("aria-pressed", "true");
    audio.play();
  }
  function player_button(label, name, heard) {
    const button = element("button", { type: "button", textContent: label });
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => { play(name, button); heard?.(); };
    return button;
  }

  function begin() {
    const name = element("input", { type: "text", id: "name", value: state.listener, autocomplete: "off" });
    const start = element("button", { type: "button", textContent: "Begin" });
    start.onclick = () => {
      state.listener = name.value.trim() || "anonymous " + Math.random().toString(36).slice(2, 8);
      state.at = 0;
      const of = (test) => shuffled(data.trials.map((t, i) => (t.test === test ? i : -1)).filter((i) => i >= 0));
      state.order = [...of("mushra"), ...of("abx")].map((trial) => {
        const { sounds, x } = data.trials[trial];
        const order = shuffled(sounds);
        return x ? { trial, order, x: x[Math.floor(Math.random() * 2)] } : { trial, order };
      });
      keep();
      show();
    };
    root.replaceChildren(element("article", {},
      element("p", {}, element("label", { htmlFor: "name", textContent: "Your name, as it will stand in the answers: " }), name),
      element("p", { className: "dim", textContent: "Rating: the reference is the recording. One of the sounds is that recording again: it deserves 100. Rate how close each is to it." }),
      start));
  }

  function show() {
    stop();
    player.cache = {};
    if (state.at < 0) return begin();
    if (state.at >= state.order.length) return finish();
    const step = state.order[state.at];
    const trial = data.trials[step.trial];
    const card = element("article", {}, element("h2", { textContent: tests[trial.test] }));
    const next = element("button", { type: "button", textContent: "Next", disabled: true });
    (trial.test === "mushra" ? rate : choose)(trial, step, card, next);
    const back = element("button", { type: "button", textContent: "Back", disabled: state.at === 0 });
    back.onclick = () => { state.at--; keep(); show(); };
    next.onclick = () => { state.at++; keep(); show(); };
    card.append(element("div", { className: "row between" }, back, next));
    root.replaceChildren(
      element("p", { className: "dim", textContent: `${state.at + 1} of ${state.order.length}` }),
      element("progress", { max: state.order.length, value: state.at, ariaLabel: "how far you are" }),
      card);
  }

  function rate(trial, step, card, next) {
    const given = (state.answers[step.trial] ||= {});
    card.append(element("div", { className: "row" }, player_button("Reference", trial.open)));
    card.append(element("div", { className: "scale" }, element("span"),
      element("div", {}, ...scale.map((word) => element("span", { textContent: word }))), element("span")));
    step.order.forEach((sound, index) => {
      const label = `Sound ${index + 1}`;
      const output = element("output", { textContent: given[sound] ?? "–" });
      const slider = element("input", { type: "range", min: 0, max: 100, value: given[sound] ?? 50, ariaLabel: `rating of ${label}` });
      slider.oninput = slider.onchange = slider.onclick = () => {
        given[sound] = Number(slider.value);
        output.textContent = slider.value;
        next.disabled = step.order.some((name) => given[name] === undefined);
        keep();
      };
      card.append(element("div", { className: "stimulus" }, player_button(label, sound), slider, output));
    });
    next.disabled = step.order.some((name) => given[name] === undefined);
  }

  function choose(trial, step, card, next) {
    const buttons = step.order.map((sound, index) => {
      const button = element("button", { type: "button", textContent: `X is ${"AB"[index]}` });
      button.onclick = () => { state.answers[step.trial] = sound; keep(); mark(); };
      return button;
    });
    const mark = () => {
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(state.answers[step.trial] === step.order[index])));
      next.disabled = state.answers[step.trial] === undefined;
    };
    card.append(
      element("div", { className: "row" }, player_button("A", step.order[0]), player_button("B", step.order[1]), player_button("X", step.x)),
      element("div", { className: "row" }, ...buttons));
    mark();
  }

  function rows() {
    const names = key();
    const out = [];
    for (const step of state.order) {
      const trial = data.trials[step.trial];
      const answer = state.answers[step.trial];
      if (trial.test === "mushra") {
        for (const sound of trial.sounds) {
          if (answer?.[sound] !== undefined) out.push([state.listener, "mushra", trial.item, names[sound], answer[sound], "", ""]);
        }
      } else if (answer !== undefined) {
        const right = names[answer] === names[step.x] ? 1 : 0;
        out.push([state.listener, "abx", trial.item, names[trial.sounds[0]], "", names[trial.sounds[1]], right]);
      }
    }
    return out;
  }
  function quoted(value) {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  function finish() {
    const csv = [data.columns, ...rows()].map((row) => row.map(quoted).join(",") + "\r\n").join("");
    const link = element("a", {
      download: `answers-${state.listener.replace(/[^\w-]+/g, "_")}.csv`,
      href: URL.createObjectURL(new Blob([csv], { type: "text/csv" })),
      textContent: "Save the answers",
      id: "save",
    });
    const back = element("button", { type: "button", textContent: "Back" });
    back.onclick = () => { state.at--; keep(); show(); };
    const anew = element("button", { type: "button", textContent: "Another listener" });
    anew.onclick = () => {
      if (!confirm("Forget these answers here? Save them first.")) return;
      state = { listener: "", at: -1, order: [], answers: {} };
      keep();
      show();
    };
    root.replaceChildren(element("article", {},
      element("h2", { textContent: "Done" }),
      element("p", {}, link, " and send the file to who asked you. ",
        element("code", { textContent: "gansound compare --answers FILE" }), " reads it."),
      element("div", { className: "row between" }, back, anew)));
  }

  show();
})();
