// What pages do beyond being read. All of them can be read, and used, without it.
"use strict";

// Where the list of pages is wider than the window, the one that is open is in sight.
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A hold's time left ticks down; when it is over, the page is asked for again.
for (const left of document.querySelectorAll("[data-seconds-left]")) {
  const end = performance.now() + Number(left.dataset.secondsLeft) * 1000;
  const tick = () => {
    const seconds = (end - performance.now()) / 1000;
    if (seconds <= 0) {
      left.textContent = "any moment";
      const pause = location.hash ? 15000 : 2000; // a second time more patiently
      location.hash = "again";
      setTimeout(() => location.reload(), pause);
    } else {
      left.textContent = seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
      setTimeout(tick, seconds < 60 ? 100 : 1000);
    }
  };
  tick();
}

// What cannot be taken back is asked once more.
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

// What goes on by itself is looked at again.
for (const work of document.querySelectorAll("[data-reload]")) {
  setTimeout(() => location.reload(), Number(work.dataset.reload) * 1000);
}

// The newest conversions come by themselves. Nothing is asked for while nobody can see them.
for (const live of document.querySelectorAll("[data-stream]")) {
  const part = (name) => live.querySelector(`[data-live="${name}"]`);
  const rows = part("rows");
  const say = (text) => { if (part("state").textContent !== text) part("state").textContent = text; };
  let source = null;
  let paused = false;
  let first = true; // what is on the page already comes once more
  const close = () => { source?.close(); source = null; };
  const put = ({ id, html }) => {
    const known = document.getElementById(id);
    if (known?.contains(document.activeElement)) return; // somebody is about to follow its link
    if (!html) return known?.remove();
    const made = document.createElement("template");
    made.innerHTML = html;
    const row = made.content.firstElementChild;
    if (known) known.replaceWith(row);
    else {
      if (!first) row.className = "new";
      rows.prepend(row);
    }
  };
  const open = () => {
    if (source || paused || document.hidden) return;
    first = true;
    source = new EventSource(live.dataset.stream);
    source.addEventListener("rows", (event) => {
      JSON.parse(event.data).rows.forEach(put);
      while (rows.children.length > Number(live.dataset.most)) rows.lastElementChild.remove();
      part("empty").hidden = rows.children.length > 0;
      first = false;
      say("Live.");
    });
    source.addEventListener("sums", (event) => {
      const sums = part("sums");
      if (sums.contains(document.activeElement)) return;
      const opened = sums.querySelector("details")?.open;
      sums.innerHTML = JSON.parse(event.data).html;
      if (opened) sums.querySelector("details").open = true;
      say("Live.");
    });
    source.addEventListener("problem", (event) => {
      const { why } = JSON.parse(event.data);
      say(why ? `Nothing can be read: ${why}.` : "Live.");
    });
    source.addEventListener("error", () => {
      say(source?.readyState === EventSource.CLOSED ? "Not live: load the page again." : "Connecting again.");
    });
  };
  part("pause").hidden = false;
  part("reload").hidden = true;
  part("pause").addEventListener("click", () => {
    paused = !paused;
    part("pause").textContent = paused ? "Go on" : "Pause";
    close();
    if (paused) say("Paused.");
    open();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
