// A stand-in for a platform's library: keeps what it is called with.
(() => {
  const tell = (tag, call) => { (window.tagCalls = window.tagCalls || []).push({tag, call}); };
  fbq.callMethod = (...call) => tell("meta", call);
  fbq.queue.splice(0).forEach(call => fbq.callMethod(...call));
})();
