// A stand-in for a platform's library: keeps what it is called with.
(() => {
  const tell = (tag, call) => { (window.tagCalls = window.tagCalls || []).push({tag, call}); };
  const early = ttq.splice(0);
  for (const method of ["page", "track", "identify"]) ttq[method] = (...call) => tell("tiktok", [method, ...call]);
  early.forEach(([method, ...call]) => ttq[method](...call));
})();
