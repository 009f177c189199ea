// What pages do beyond being read. All of them can be read, and used, without it.
"use strict";

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
