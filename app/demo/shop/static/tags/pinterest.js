// A stand-in for a platform's library: keeps what it is called with.
(() => {
  const tell = (tag, call) => { (window.tagCalls = window.tagCalls || []).push({tag, call}); };
  const early = pintrk.queue.splice(0);
  pintrk.queue.push = call => tell("pinterest", call);
  early.forEach(call => pintrk(...call));
})();
