"use strict";
// Samples are made from the JSON above as they come into view; all text goes in as text, never as markup.
window.addEventListener("error", (e) => { document.documentElement.dataset.error = e.message || "error"; });
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { methods, columns, samples, reasons } = data;
  const tools = document.getElementById("tools"), list = document.getElementById("list"), rest = document.getElementById("more");
  const column = Object.fromEntries(columns.map((c) => [c.name, c]));
  const STEP = 20;
  let chosen = [], shown = 0;

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
  option(tools.subset, "", "all");
  data.subsets.forEach((s) => option(tools.subset, s, s));
  if (data.subsets.length < 2) tools.subset.parentNode.hidden = true;
  if (methods.length < 2) { tools.of.parentNode.hidden = true; document.getElementById("methods").hidden = true; }
  methods.forEach((m, i) => {
    const label = make("label", "m" + m.colour), box = make("input");
    box.type = "checkbox"; box.checked = true; box.name = "method"; box.value = i;
    label.append(box, make("span", "swatch"), document.createTextNode(m.name));
    document.getElementById("methods").append(label);
  });

  const on = () => [...document.querySelectorAll("[name=method]")].filter((b) => b.checked).map((b) => +b.value);
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
    const find = tools.find.value.trim().toLowerCase();
    chosen = samples.filter((s) =>
      (!tools.subset.value || s.subset === tools.subset.value) &&
      (tools.only.value !== "failed" || which.some((i) => Object.keys(s.clips[i].why).length)) &&
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
    list.replaceChildren();
    shown = 0;
    more();
  }

  function more() {
    const part = document.createDocumentFragment(), which = on();
    chosen.slice(shown, shown + STEP).forEach((s) => part.append(card(s, which)));
    shown = Math.min(shown + STEP, chosen.length);
    list.append(part);
    rest.hidden = shown >= chosen.length;
  }

  function card(sample, which) {
    const node = make("article", "sample"), head = make("header");
    node.dataset.id = sample.id;
    head.append(make("h3", "", sample.id));
    [sample.subset, sample.speech && sample.lang].filter(Boolean).forEach((t) => head.append(make("span", "tag", t)));
    node.append(head);
    if (sample.speech) node.append(make("p", "speech", `\u201c${sample.speech}\u201d`));
    if (sample.prompt) node.append(make("p", "prompt", sample.prompt));
    const clips = make("div", "clips");
    which.forEach((i) => clips.append(panel(sample.clips[i], methods[i])));
    node.append(clips);
    return node;
  }

  function panel(clip, method) {
    const node = make("section", "clip m" + method.colour), said = make("div", "said");
    said.append(make("h4", "", method.name), scores(clip));
    if (clip.text !== undefined) {
      const heard = make("p", "heard", "heard ");
      heard.append(make("i", "", clip.text ? `\u201c${clip.text}\u201d` : "nothing"));
      said.append(heard);
    }
    said.append(...[["why", clip.why], ["why apart", clip.apart]].flatMap(([cls, why]) => told(cls, why)));
    node.append(frame(clip), said);
    return node;
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
    if (clip.href) return clip.href;
    const bytes = Uint8Array.from(atob(document.getElementById(clip.data).textContent), (b) => b.charCodeAt(0));
    return URL.createObjectURL(new Blob([bytes], { type: clip.type }));
  }

  function frame(clip) {
    const box = make("div", "frame");
    if (clip.poster) { const image = make("img"); image.src = clip.poster; image.alt = ""; box.append(image); }
    else box.append(make("p", "", clip.note || "no picture"));
    const sound = clip.type && clip.type.startsWith("audio");
    if (!clip.poster && !sound) return box; // missing or broken, as its text says
    const play = make("button", "play");
    play.type = "button"; play.title = "play"; play.setAttribute("aria-label", "play");
    play.addEventListener("click", () => {
      const media = make(sound ? "audio" : "video");
      media.controls = true; media.loop = true; media.playsInline = true;
      media.addEventListener("error", () => {
        const link = make("a", "", "the file itself"), text = make("p", "", "This browser cannot play it (HEVC?): ");
        link.href = media.src; link.download = clip.name; text.append(link);
        box.replaceChildren(text);
      });
      media.src = address(clip);
      box.parentNode.classList.add("open");
      box.replaceChildren(media);
      media.play().catch(() => {});
    });
    box.append(play);
    return box;
  }

  tools.addEventListener("input", choose);
  tools.addEventListener("submit", (e) => e.preventDefault());
  rest.addEventListener("click", more);
  new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting)) more(); }, { rootMargin: "800px" }).observe(rest);
  choose();
  document.documentElement.dataset.ready = samples.length;
})();
