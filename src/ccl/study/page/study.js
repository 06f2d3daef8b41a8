"use strict";
// Pairs of clips, one after the other; every answer is kept in the browser at once. All text goes in as text.
window.addEventListener("error", (e) => { document.documentElement.dataset.error = e.message || "error"; });
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { study, questions, trials, parts } = data;
  const $ = (id) => document.getElementById(id);
  const KEPT = `ccl study ${study}`, SIDES = ["left", "right"], WORDS = { left: "the first", right: "the second", tie: "no difference", broken: "not played" };
  let me = null; // { rater, part, answers: [lines] }
  let at = null; // the pair on the screen
  let playing = 0; // grows with everything that is played, so that what was begun before stops

  // What is remembered ------------------------------------------------------------------------------------------

  // A key of its own for each rater and part: two tabs of one browser do not write over each other's answers.
  let remembers = true;
  const keyOf = ({ rater, part }) => `${KEPT} ${part} ${rater}`;
  function recall(key) {
    try { return JSON.parse(localStorage.getItem(key)); } catch (e) { remembers = false; return null; }
  }
  function keep() {
    try {
      localStorage.setItem(keyOf(me), JSON.stringify(me));
      localStorage.setItem(KEPT, JSON.stringify(keyOf(me)));
    } catch (e) { remembers = false; }
    $("forgets").hidden = remembers;
  }

  const part = () => parts[me.part - 1];
  const answered = (trial, key) => me.answers.find((a) => a.trial === trial && a.question === key);
  const next = () => part().findIndex(([trial]) => questions.some((q) => !answered(trial, q.key)));
  const done = () => part().filter(([trial]) => questions.every((q) => answered(trial, q.key))).length;
  const lines = () => me.answers.map((a) => JSON.stringify(a) + "\n").join("");

  function show(id) {
    for (const name of ["start", "trial", "end"]) $(name).hidden = name !== id;
    document.body.dataset.at = id;
    window.scrollTo(0, 0);
  }

  // Who rates ---------------------------------------------------------------------------------------------------

  const form = $("who"), given = Number(location.hash.slice(1));
  const fixed = Number.isInteger(given) && given >= 1 && given <= parts.length;
  parts.forEach((_, i) => { const o = document.createElement("option"); o.value = o.textContent = i + 1; form.part.append(o); });
  form.part.value = fixed ? given : 1 + Math.floor(Math.random() * parts.length);
  $("whichpart").hidden = fixed || parts.length < 2;

  function begin() {
    $("many").textContent = parts[0].length;
    const last = recall(recall(KEPT));
    $("forgets").hidden = remembers;
    if (last && (!fixed || last.part === given)) {
      me = last;
      $("again").hidden = false;
      $("resume").textContent = `Go on as ${last.rater} (${done()} of ${part().length})`;
    }
    show("start");
  }

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    const random = [...crypto.getRandomValues(new Uint8Array(4))].map((b) => b.toString(16).padStart(2, "0")).join("");
    const rater = form.rater.value.trim().replace(/\s+/g, " ") || random;
    me = { rater, part: Number(form.part.value), answers: [] };
    me = recall(keyOf(me)) || me;
    keep();
    go();
  });
  $("resume").addEventListener("click", () => go());

  // A pair ------------------------------------------------------------------------------------------------------

  const ready = new Map(); // clips of this pair and of the next one, by place and side
  function clip(place, side) {
    const key = `${place}/${side}`;
    if (!ready.has(key)) {
      const [trial, flipped] = part()[place], video = document.createElement("video");
      Object.assign(video, { preload: "auto", playsInline: true, disablePictureInPicture: true });
      video.src = `${data.folder}/${trials[trial].clips[side ^ flipped]}.mp4`;
      ready.set(key, video);
    }
    return ready.get(key);
  }

  function go() {
    const place = next();
    if (!at || at.place !== place || at.me !== me) halt();
    if (place < 0) return finish();
    if (!at || at.place !== place || at.me !== me) open(place);
    draw();
    if ($("trial").hidden) show("trial");
  }

  function open(place) {
    const [trial, flipped] = part()[place], names = trials[trial].clips;
    for (const key of ready.keys()) if (Number(key.split("/")[0]) !== place) ready.delete(key);
    at = { place, trial, me, names: [names[flipped], names[1 - flipped]], videos: [0, 1].map((side) => clip(place, side)), seen: [false, false], plays: 0, since: performance.now() };
    $("broken").hidden = true;
    const here = at;
    at.videos.forEach((video, side) => {
      const frame = $(SIDES[side]).querySelector(".frame");
      frame.replaceChildren(video);
      $(SIDES[side]).className = "";
      const fails = () => { if (here === at) { here.failed = true; $("broken").hidden = false; draw(); } };
      video.onerror = fails;
      if (video.error) fails();
      video.onloadedmetadata = () => shape(here, frame, video);
      if (video.readyState) shape(here, frame, video);
    });
    $("prompt").textContent = trials[trial].prompt;
    if (place + 1 < part().length) { clip(place + 1, 0); clip(place + 1, 1); }
    (data.together ? both : turns)();
  }

  function shape(here, frame, video) {
    const wide = video.videoWidth > 1.2 * video.videoHeight;
    if (here === at && video.videoWidth) document.querySelector(".pair").className = wide ? "pair wide" : "pair tall";
    if (!video.videoWidth && !frame.querySelector(".note")) {
      const note = document.createElement("span");
      note.className = "note"; note.textContent = "sound alone";
      frame.append(note);
    }
  }

  function draw() {
    const open = at.seen.every(Boolean) && !at.failed, now = questions.find((q) => !answered(at.trial, q.key));
    $("count").textContent = `${at.place + 1} of ${part().length}`;
    $("undo").hidden = !me.answers.length;
    $("bar").max = part().length;
    $("bar").value = done();
    $("questions").replaceChildren(...questions.map((q) => {
      const box = document.createElement("div"), text = document.createElement("p"), row = document.createElement("div"), answer = answered(at.trial, q.key);
      box.className = "question" + (q === now ? " now" : "") + (answer ? " done" : "");
      text.textContent = q.text;
      if (answer) text.dataset.answer = WORDS[answer.answer];
      for (const [value, label, key] of [["left", "First", "←"], ["tie", "No difference", "↓"], ["right", "Second", "→"]]) {
        const button = document.createElement("button"), hint = document.createElement("kbd");
        button.type = "button"; button.disabled = !open; button.dataset.answer = value;
        hint.textContent = key;
        button.append(hint, ` ${label}`);
        button.addEventListener("click", () => answer_(value));
        row.append(button);
      }
      box.append(text, row);
      return box;
    }));
    $("hint").textContent = at.failed ? "" : at.blocked ? "Press space, or a button, to play." : open ? "" : "Answers open when both clips have been heard to their end.";
    document.body.dataset.open = open;
  }

  function answer_(value) {
    const q = questions.find((one) => !answered(at.trial, one.key));
    if (!q || !(at.seen.every(Boolean) && !at.failed)) return;
    record(q.key, value);
    go();
  }

  function record(question, answer) {
    me.answers.push({
      study, rater: me.rater, part: me.part, trial: at.trial, question, answer, left: at.names[0], right: at.names[1],
      seconds: Math.round((performance.now() - at.since) / 100) / 10, plays: at.plays, at: new Date().toISOString(),
    });
    keep();
  }

  $("skip").addEventListener("click", () => {
    questions.filter((q) => !answered(at.trial, q.key)).forEach((q) => record(q.key, "broken"));
    go();
  });

  function undo() {
    const last = me.answers.pop();
    if (!last) return;
    halt();
    keep();
    if (at && at.trial !== last.trial) at = null;
    const place = next();
    if (!at) { open(place); at.seen = [true, true]; }
    show("trial");
    draw();
  }

  $("undo").addEventListener("click", (e) => { undo(); e.currentTarget.blur(); });

  // Playing -----------------------------------------------------------------------------------------------------

  function halt() {
    playing += 1;
    if (!at) return;
    at.videos.forEach((video, side) => { video.pause(); video.playbackRate = video.defaultPlaybackRate; $(SIDES[side]).classList.remove("playing"); });
  }

  function saw(here, side) {
    here.seen[side] = true;
    if (here !== at) return;
    $(SIDES[side]).classList.add("seen");
    draw();
  }

  async function start(here, video) {
    try { await video.play(); here.blocked = false; return true; } catch (e) {
      if (e.name === "NotAllowedError" && here === at) { here.blocked = true; draw(); }
      return false;
    }
  }

  const ended = (video) => new Promise((resolve) => {
    const over = () => { video.removeEventListener("ended", over); video.removeEventListener("pause", over); resolve(video.ended); };
    video.addEventListener("ended", over);
    video.addEventListener("pause", over);
  });

  // One clip from its beginning; whether it came to its end.
  async function one(side) {
    halt();
    const mine = playing, here = at, video = here.videos[side];
    video.muted = false;
    video.currentTime = 0;
    $(SIDES[side]).classList.add("playing");
    here.plays += 1;
    const over = ended(video);
    if (!(await start(here, video))) return false;
    const whole = await over;
    if (mine === playing) $(SIDES[side]).classList.remove("playing");
    if (whole) saw(here, side);
    return whole && mine === playing;
  }

  async function turns() {
    if (await one(0)) await one(1);
  }

  // Both from the beginning and side by side in time; one is heard, and counts as seen at its end.
  let ear = 0;
  async function both() {
    halt();
    const mine = playing, here = at;
    here.together = mine;
    here.plays += 1;
    here.videos.forEach((video) => { video.currentTime = 0; });
    ear = here.seen[0] && !here.seen[1] ? 1 : 0;
    hear(ear);
    here.heard = [ear === 0, ear === 1];
    const over = here.videos.map(ended);
    if (!(await Promise.all(here.videos.map((video) => start(here, video)))).every(Boolean)) return;
    // The one that is not heard hurries or waits, so that nobody hears it; a seek would make it late again.
    const follow = () => {
      if (mine !== playing) return;
      const lead = here.videos[ear], other = here.videos[1 - ear], late = lead.currentTime - other.currentTime;
      if (Math.abs(late) > 0.5 && !lead.ended) other.currentTime = lead.currentTime;
      lead.playbackRate = lead.defaultPlaybackRate;
      other.playbackRate = other.defaultPlaybackRate * (1 + Math.max(-0.3, Math.min(0.3, 2 * late)));
      setTimeout(follow, 100);
    };
    follow();
    const whole = await Promise.all(over);
    if (mine !== playing) return;
    SIDES.forEach((side) => $(side).classList.remove("playing"));
    whole.forEach((yes, side) => { if (yes && here.heard[side]) saw(here, side); });
    here.together = null;
  }

  function hear(side) {
    ear = side;
    at.videos.forEach((video, i) => { video.muted = i !== side; $(SIDES[i]).classList.toggle("playing", i === side); });
  }

  function choose(side) {
    if (at.together === playing) {
      at.heard = [side === 0, side === 1].map((yes) => yes && at.videos[side].currentTime < 0.2);
      hear(side);
    } else one(side);
  }

  document.querySelectorAll("[data-play]").forEach((b) => b.addEventListener("click", () => { choose(Number(b.dataset.play)); b.blur(); }));
  $("turns").addEventListener("click", (e) => { turns(); e.currentTarget.blur(); });
  $("both").addEventListener("click", (e) => { both(); e.currentTarget.blur(); });

  const KEYS = {
    ArrowLeft: () => answer_("left"), ArrowRight: () => answer_("right"), ArrowDown: () => answer_("tie"),
    " ": turns, r: turns, b: both, 1: () => choose(0), 2: () => choose(1), Backspace: undo,
  };
  window.addEventListener("keydown", (e) => {
    if ($("trial").hidden || e.ctrlKey || e.metaKey || e.altKey || e.repeat || !KEYS[e.key]) return;
    if (e.key === " " && document.activeElement && document.activeElement.tagName === "BUTTON") document.activeElement.blur();
    e.preventDefault();
    KEYS[e.key]();
  });

  // The end -----------------------------------------------------------------------------------------------------

  function finish() {
    const all = next() < 0, pairs = done();
    $("end").querySelector("h1").textContent = all ? "Thank you" : "So far";
    $("told").textContent = `${pairs} of ${part().length} pairs are answered. ` + (all ? "Please save the answers and send the file to whoever gave you this page." : "What you save now is not lost: at the end you save everything again, and that file alone is needed.");
    $("lines").value = lines();
    $("saved").textContent = "";
    $("back").textContent = all ? "Change the last answer" : "Go on";
    at = all ? null : at;
    show("end");
  }

  $("early").addEventListener("click", () => { halt(); finish(); });
  $("back").addEventListener("click", () => { if (next() < 0) undo(); else { show("trial"); go(); } });
  $("save").addEventListener("click", () => {
    const link = document.createElement("a"), name = me.rater.replace(/[^\p{L}\p{N}-]+/gu, "_");
    link.href = URL.createObjectURL(new Blob([lines()], { type: "application/jsonl" }));
    link.download = `answers-${study}-${name}.jsonl`;
    link.click();
    $("saved").textContent = `Saved as ${link.download}, where this browser puts what it downloads. If there is no such file, copy the answers.`;
  });
  $("copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(lines()); } catch (e) {
      $("lines").select();
      if (!document.execCommand("copy")) { $("saved").textContent = "This browser does not let the page copy: the text below is marked, copy it by hand."; return; }
    }
    $("saved").textContent = "Copied.";
  });

  begin();
  document.documentElement.dataset.ready = parts.length;
})();
