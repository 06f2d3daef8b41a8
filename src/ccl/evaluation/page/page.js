// Samples are made from the JSON above as they come into view; all text goes in as text, never as markup.
window.addEventListener("error", (e) => { document.documentElement.dataset.error = e.message || "error"; });
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { methods, columns, samples, reasons } = data;
  const tools = document.getElementById("tools"), list = document.getElementById("list"), rest = document.getElementById("more");
  const column = Object.fromEntries(columns.map((c) => [c.name, c]));
  const STEP = 20, JUMP = 0.5; // samples made at a time; seconds that an arrow moves
  let chosen = [], shown = 0, at = null; // at: the sample that keys are for

  const make = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const option = (select, value, text) => { const o = make("option", "", text); o.value = value; select.append(o); };
  const written = (c, v) => (v === undefined ? "\u2014" : (v * (c.percent ? 100 : 1)).toFixed(c.digits) + (c.percent ? "%" : ""));
  const worse = (c, a, b) => (c.better === "lower" ? b - a : a - b); // < 0: a is worse than b

  // What counts as bad: the worst tenth of a column, over all methods.
  const bound = {};
  for (const c of columns) {
    const all = samples.flatMap((s) => s.clips.map((k) => k.values[c.name])).filter((v) => v !== undefined);
    all.sort((a, b) => worse(c, a, b));
    const edge = all[Math.ceil(all.length / 10) - 1];
    // Where more than a fifth are as bad, it says nothing.
    if (c.better && all.length >= 10 && all.filter((v) => worse(c, v, edge) <= 0).length <= all.length / 5) bound[c.name] = edge;
  }

  columns.forEach((c) => option(tools.sort, c.name, c.title));
  const valued = columns.find((c) => samples.some((s) => s.clips.some((k) => k.values[c.name] !== undefined)));
  if (valued) tools.sort.value = valued.name;
  tools.order.value = data.order;
  option(tools.of, "", "any method");
  methods.forEach((m, i) => option(tools.of, i, m.name));
  data.pairs.forEach(([a, b]) => option(tools.of, `${a},${b}`, `${methods[a].name} minus ${methods[b].name}`));
  option(tools.show, "", "all systems");
  methods.forEach((m, i) => methods.slice(i + 1).forEach((n, j) => option(tools.show, `${i},${i + 1 + j}`, `${m.name} | ${n.name}`)));
  option(tools.by, "", "any score");
  columns.forEach((c) => option(tools.by, c.name, c.title));
  option(tools.subset, "", "all");
  data.subsets.forEach((s) => option(tools.subset, s, s));
  if (data.subsets.length < 2) tools.subset.parentNode.hidden = true;
  if (methods.length < 2) { tools.of.parentNode.hidden = tools.show.parentNode.hidden = true; document.getElementById("methods").hidden = true; }
  methods.forEach((m, i) => {
    const label = make("label", "m" + m.colour), box = make("input");
    box.type = "checkbox"; box.checked = true; box.name = "method"; box.value = i;
    label.append(box, make("span", "swatch"), document.createTextNode(m.name));
    document.getElementById("methods").append(label);
  });

  const pair = () => (tools.show.value ? tools.show.value.split(",").map(Number) : null);
  const on = () => pair() || [...document.querySelectorAll("[name=method]")].filter((b) => b.checked).map((b) => +b.value);
  const key = (sample, c, which) => {
    const values = which.map((i) => sample.clips[i].values[c.name]).filter((v) => v !== undefined);
    return values.length ? values.reduce((a, b) => (worse(c, a, b) <= 0 ? a : b)) : undefined;
  };

  const gain = (sample, c, [a, b]) => {
    const [x, y] = [a, b].map((i) => sample.clips[i].values[c.name]);
    return x === undefined || y === undefined ? undefined : x - y;
  };
  const apart = (sample, c, which) => {
    const values = which.map((i) => sample.clips[i].values[c.name]).filter((v) => v !== undefined);
    return values.length > 1 ? Math.max(...values) - Math.min(...values) : undefined;
  };

  function choose() {
    const which = on(), c = column[tools.sort.value], order = tools.order.value;
    const of = tools.of.value === "" ? which : tools.of.value.split(",").map(Number);
    const two = tools.of.value.includes(","), rank = order === "apart" ? apart : two ? gain : key;
    const within = range(of, two), find = tools.find.value.trim().toLowerCase();
    chosen = samples.filter((s) =>
      (!tools.subset.value || s.subset === tools.subset.value) &&
      (tools.only.value !== "failed" || of.some((i) => Object.keys(s.clips[i].why).length)) && within(s) &&
      (!find || [s.id, s.prompt, s.speech].some((t) => t.toLowerCase().includes(find))));
    if (order !== "id" && c) {
      const keys = new Map(chosen.map((s) => [s, rank(s, c, of)]));
      chosen.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return order === "apart" ? y - x : (order === "worst" ? 1 : -1) * worse(c, x, y);
      });
    }
    const whose = two ? ` of ${tools.of.selectedOptions[0].text}` : "";
    const worst = order !== "id" && c ? `, ${order === "apart" ? "furthest apart in" : order} ${c.title}${whose} first` : "";
    document.getElementById("count").textContent = `${chosen.length} of ${samples.length} samples${worst}`;
    document.getElementById("methods").classList.toggle("off", Boolean(pair()));
    document.getElementById("swap").hidden = !pair();
    if (Player.live) Player.live.close();
    list.replaceChildren();
    at = null;
    shown = 0;
    more();
  }

  // Whether a sample has a value within the bounds that are given, of any of these methods, or as their difference.
  function range(of, two) {
    const c = column[tools.by.value], scale = c && c.percent ? 100 : 1;
    [tools.least, tools.most].forEach((bound) => { bound.disabled = !c; });
    if (!c) return () => true;
    const [least, most] = [[tools.least, -Infinity], [tools.most, Infinity]].map(([b, none]) => (b.value === "" ? none : +b.value));
    const inside = (v) => v !== undefined && v * scale >= least - 1e-9 && v * scale <= most + 1e-9;
    return (s) => (two ? inside(gain(s, c, of)) : of.some((i) => inside(s.clips[i].values[c.name])));
  }

  function more() {
    const part = document.createDocumentFragment(), which = on();
    chosen.slice(shown, shown + STEP).forEach((s) => part.append(card(s, which)));
    shown = Math.min(shown + STEP, chosen.length);
    list.append(part);
    rest.hidden = shown >= chosen.length;
  }

  function card(sample, which) {
    const node = make("article", "sample"), head = make("header"), title = make("h3"), link = make("a", "", sample.id);
    node.dataset.id = sample.id;
    link.href = place(sample.id);
    title.append(link);
    head.append(title);
    [sample.subset, sample.speech && sample.lang].filter(Boolean).forEach((t) => head.append(make("span", "tag", t)));
    node.append(head);
    if (sample.speech) node.append(make("p", "speech", `\u201c${sample.speech}\u201d`));
    if (sample.prompt) node.append(make("p", "prompt", sample.prompt));
    const clips = make("div", pair() ? "clips two" : "clips"), longest = Math.max(...which.map((i) => sample.clips[i].seconds || 0));
    const panels = which.map((i) => panel(sample.clips[i], methods[i], longest)), playable = panels.filter((p) => p.address);
    panels.forEach((p) => clips.append(p.node));
    node.append(clips);
    if (playable.length) node.append(bar(node, playable, longest));
    node.addEventListener("pointerdown", () => select(node));
    return node;
  }

  // What one sample's clips are played by.
  function bar(node, panels, longest) {
    const box = make("div", "bar"), go = make("button", "go"), time = make("span", "time"), range = make("input");
    go.type = "button";
    range.type = "range"; range.min = 0; range.max = longest; range.step = 0.01; range.value = 0;
    range.setAttribute("aria-label", "time");
    const row = node.row = new Player.Row(panels, longest, () => {
      const word = row.playing ? "pause" : "play";
      go.className = row.playing ? "go playing" : "go"; go.title = word; go.setAttribute("aria-label", word);
      range.value = row.time;
      time.textContent = `${row.time.toFixed(2)} / ${longest.toFixed(2)} s`;
      panels.forEach((p) => { if (p.head) p.head.style.left = `${Math.min(100, (100 * row.time) / p.clip.seconds)}%`; });
    });
    go.addEventListener("click", () => row.toggle());
    range.addEventListener("input", () => row.seek(+range.value));
    panels.forEach((p) => {
      p.play.addEventListener("click", () => { row.heard = p; row.play(pair() ? panels : [p]); });
      p.ear.addEventListener("click", () => row.hear(p));
      p.ear.hidden = panels.length < 2;
      if (p.wave) p.wave.addEventListener("click", (e) => {
        const { left, width } = p.wave.getBoundingClientRect();
        row.seek(((e.clientX - left) / width) * p.clip.seconds);
      });
    });
    box.append(go, range, time);
    row.show();
    return box;
  }

  function panel(clip, method, longest) {
    const node = make("section", "clip m" + method.colour), film = make("div", "film"), said = make("div", "said");
    const head = make("h4", "", method.name), box = make("div", "frame"), made = { clip, node, box };
    if (clip.poster) {
      const image = make("img");
      image.addEventListener("load", () => box.style.setProperty("--shape", image.naturalWidth / image.naturalHeight));
      image.src = clip.poster; image.alt = ""; box.append(image);
    } else box.append(make("p", "", clip.note || "no picture"));
    film.append(box);
    if (clip.poster || (clip.type && clip.type.startsWith("audio"))) { // else missing or broken, as its text says
      made.play = button("play", "play"); made.ear = button("ear", "hear this one");
      made.address = () => address(clip);
      made.fail = (source) => box.replaceChildren(unplayed(source, clip));
      box.append(made.play);
      head.append(made.ear);
      if (clip.wave || clip.mouth) {
        made.wave = wave(clip, longest); made.head = made.wave.lastChild;
        film.append(made.wave);
      }
    }
    said.append(head, scores(clip));
    if (clip.text !== undefined) {
      const heard = make("p", "heard-words", "heard ");
      heard.append(make("i", "", clip.text ? `\u201c${clip.text}\u201d` : "nothing"));
      said.append(heard);
    }
    if (clip.from && made.address) said.append(make("p", "from", `shown converted: browsers do not show ${clip.from}`));
    said.append(...[["why", clip.why], ["why apart", clip.apart]].flatMap(([cls, why]) => told(cls, why)));
    node.append(film, said);
    return made;
  }

  function button(cls, title) {
    const made = make("button", cls);
    made.type = "button"; made.title = title; made.setAttribute("aria-label", title);
    return made;
  }

  function unplayed(source, clip) {
    const link = make("a", "", "the file itself"), text = make("p", "", "This browser cannot play it: ");
    link.href = source; link.download = clip.name; text.append(link);
    return text;
  }

  const bytes = (text) => Uint8Array.from(atob(text), (b) => b.charCodeAt(0));
  const drawn = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // How loud the sound is over time, and how far the mouth is open, on the time of the longest clip beside it.
  function wave(clip, longest) {
    const box = make("div", "wave"), svg = drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": true });
    const points = (values, y) => [...values].map((v, i) => `${((100 * i) / (values.length - 1)).toFixed(2)} ${y(v / 255).toFixed(1)}`);
    const loud = bytes(clip.wave || "");
    if (loud.length) svg.append(drawn("path", { class: "loud", d: `M${[...points(loud, (v) => 50 - 49 * v), ...points(loud, (v) => 50 + 49 * v).reverse()].join("L")}Z` }));
    if (clip.mouth) svg.append(drawn("path", { class: "mouth", d: `M${points(bytes(clip.mouth), (v) => 96 - 92 * v).join("L")}` }));
    box.style.width = `${(100 * clip.seconds) / longest}%`;
    box.title = clip.mouth ? "loudness; the line is how far the mouth is open" : "loudness";
    box.append(svg, make("i", "head"));
    return box;
  }

  // Reasons with the measures they concern: of what failed, or of what there was nothing to measure in.
  function told(cls, why) {
    const by = new Map();
    for (const [name, at] of Object.entries(why)) by.set(at, [...(by.get(at) || []), column[name] ? column[name].title : name]);
    if (!by.size) return [];
    const list = make("ul", cls);
    by.forEach((titles, at) => {
      const line = make("li", "", reasons[at] + " ");
      line.append(make("span", "", titles.length > 4 ? `(${titles.length} measures)` : `(${titles.join(", ")})`));
      list.append(line);
    });
    return [list];
  }

  function scores(clip) {
    const box = make("dl", "scores");
    for (const c of columns) {
      const v = clip.values[c.name], row = make("div");
      if (v === undefined) row.classList.add("none");
      else if (bound[c.name] !== undefined && worse(c, v, bound[c.name]) <= 0) row.classList.add("bad");
      if (c.name === tools.sort.value) row.classList.add("sorted");
      row.append(make("dt", "", c.title), make("dd", "", v === undefined && c.name in clip.apart ? "n/a" : written(c, v)));
      box.append(row);
    }
    return box;
  }

  // A clip's bytes lie in a script of their own and become a file of the browser's when it is played.
  function address(clip) {
    return clip.href || URL.createObjectURL(new Blob([bytes(document.getElementById(clip.data).textContent)], { type: clip.type }));
  }

  const place = (id) => `#row=${encodeURIComponent(id)}`;

  function select(node) {
    if (at) at.classList.remove("at");
    at = node;
    at.classList.add("at");
    if (location.hash !== place(at.dataset.id)) history.replaceState(null, "", place(at.dataset.id));
  }

  // Twice: those above it are as high as they are only once they have come near.
  function bring(node) {
    const go = () => node.scrollIntoView({ behavior: "instant" });
    go();
    requestAnimationFrame(go);
  }

  // A part of an address as text; one typed by hand may be none that can be decoded, and is taken as it is.
  function decoded(part) {
    try { return decodeURIComponent(part); } catch { return part; }
  }

  // The row that a link names, with whatever would hide it put aside.
  function visit() {
    if (!location.hash.startsWith("#row=")) return;
    const id = decoded(location.hash.slice(5)), sample = samples.find((s) => s.id === id);
    if (!sample) { document.getElementById("count").textContent = `There is no row ${id}.`; return; }
    if (!chosen.includes(sample)) {
      ["subset", "only", "by", "least", "most", "find"].forEach((name) => { tools[name].value = ""; });
      choose();
    }
    while (shown <= chosen.indexOf(sample)) more();
    const node = list.children[chosen.indexOf(sample)];
    select(node);
    bring(node);
  }

  function step(by) {
    const nodes = [...list.children];
    let to = at ? nodes.indexOf(at) + by : nodes.findIndex((n) => n.getBoundingClientRect().bottom > 80);
    if (to === nodes.length && shown < chosen.length) { more(); nodes.push(...[...list.children].slice(nodes.length)); }
    to = Math.max(0, Math.min(to, nodes.length - 1));
    if (!nodes.length) return;
    if (Player.live && Player.live !== nodes[to].row) Player.live.close();
    select(nodes[to]);
    bring(nodes[to]);
  }

  function swap() { if (pair()) list.classList.toggle("swapped"); }

  const keys = {
    j: () => step(1), k: () => step(-1), s: swap,
    " ": () => { if (!at) step(0); if (at && at.row) at.row.toggle(); },
    ArrowLeft: () => at && at.row && at.row.seek(at.row.time - JUMP),
    ArrowRight: () => at && at.row && at.row.seek(at.row.time + JUMP),
    m: () => { if (at && at.row) at.row.hear(at.row.panels[(at.row.panels.indexOf(at.row.heard) + 1) % at.row.panels.length]); },
  };
  document.addEventListener("keydown", (e) => {
    const typing = e.target.closest("input, select, textarea"), pressing = e.key === " " && e.target.closest("button, a");
    if (e.ctrlKey || e.metaKey || e.altKey || typing || pressing || !keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
  });

  tools.addEventListener("input", choose);
  tools.addEventListener("submit", (e) => e.preventDefault());
  rest.addEventListener("click", more);
  new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting)) more(); }, { rootMargin: "800px" }).observe(rest);
  document.getElementById("swap").addEventListener("click", swap);
  window.addEventListener("hashchange", visit);
  choose();
  visit();
  document.documentElement.dataset.ready = samples.length;
})();
