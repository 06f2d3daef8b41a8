"use strict";
// The clips of a row play together: one bar, one clock, one sound. A row that begins ends the one before, so that a page
// of hundreds keeps no more decoders than a row needs.
const Player = (() => {
  const NEAR = 0.03, FAR = 0.25; // seconds off the clock: below, a clip is let be; above, it jumps instead of hastening
  let live = null;

  // A panel is {clip, node, box, address()}: box shows the first picture until media takes its place.
  class Row {
    constructor(panels, seconds, drawn) {
      Object.assign(this, { panels, seconds, drawn, time: 0, playing: false, heard: panels[0] });
    }

    get open() { return this.panels.filter((p) => p.media); }

    // Whose clock counts: of the one that is heard, which must not jump; at its end, of one that is longer.
    get lead() { return [this.heard, ...this.panels].find((p) => p.media && !p.media.ended && !p.media.error); }

    async play(which) {
      if (live && live !== this) live.close();
      live = this;
      which.filter((p) => !p.media).forEach((p) => this.start(p));
      if (!this.open.includes(this.heard)) this.heard = this.open[0] || this.heard;
      this.playing = true;
      this.show();
      await Promise.all(this.open.map((p) => ready(p.media)));
      if (!this.playing || live !== this) return;
      this.seek(this.lead ? this.time : 0);
      requestAnimationFrame(() => this.tick());
    }

    pause() {
      this.playing = false;
      this.open.forEach((p) => p.media.pause());
      this.show();
    }

    toggle() { if (this.playing) this.pause(); else this.play(this.open.length ? this.open : this.panels); }

    seek(time) {
      this.time = Math.max(0, Math.min(time, this.seconds));
      for (const { media } of this.open) {
        const to = Math.min(this.time, media.duration || this.time);
        if (Math.abs(media.currentTime - to) > NEAR || media.ended) media.currentTime = to;
        if (this.playing && media.paused && this.time < (media.duration || Infinity)) media.play().catch(() => {});
      }
      this.show();
    }

    hear(panel) {
      this.heard = panel;
      this.show();
    }

    // Back to first pictures.
    close() {
      this.pause();
      for (const p of this.open) this.stop(p);
      if (live === this) live = null;
      this.show();
    }

    start(panel) {
      const media = document.createElement(panel.clip.type.startsWith("audio") ? "audio" : "video");
      media.playsInline = true;
      media.addEventListener("error", () => { this.stop(panel); panel.fail(media.src); this.show(); });
      media.src = panel.address();
      panel.media = media;
      panel.node.classList.add("open");
      panel.box.append(media);
    }

    stop(panel) {
      const { media } = panel;
      panel.media = undefined;
      panel.node.classList.remove("open");
      media.remove();
      if (media.src.startsWith("blob:") && !media.error) URL.revokeObjectURL(media.src);
    }

    tick() {
      if (!this.playing || live !== this) return;
      const { lead } = this;
      if (lead) {
        this.time = lead.media.currentTime;
        this.open.filter((p) => p !== lead && !p.media.ended && !p.media.seeking).forEach(({ media }) => {
          const late = this.time - media.currentTime;
          if (Math.abs(late) > FAR && this.time < media.duration) media.currentTime = this.time;
          media.playbackRate = Math.abs(late) > NEAR ? 1 + Math.max(-0.25, Math.min(late, 0.25)) : 1;
        });
        lead.media.playbackRate = 1;
        this.show();
      } else if (this.open.length) this.seek(0); // all at their end: once more
      requestAnimationFrame(() => this.tick());
    }

    show() {
      for (const p of this.panels) {
        p.node.classList.toggle("heard", p === this.heard);
        if (p.media) p.media.muted = p !== this.heard;
      }
      this.drawn(this);
    }
  }

  const ready = (media) => new Promise((done) => {
    if (media.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA || media.error) done();
    else ["canplay", "error"].forEach((name) => media.addEventListener(name, done, { once: true }));
  });

  return { Row, get live() { return live; } };
})();
