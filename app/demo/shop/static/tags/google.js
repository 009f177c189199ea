// A stand-in for a platform's library: keeps what it is called with.
(() => {
  const tell = (tag, call) => { (window.tagCalls = window.tagCalls || []).push({tag, call}); };
  window.google_tag_manager = {"G-DEMO123456": {}};
  const push = dataLayer.push;
  dataLayer.push = function (...commands) {
    commands.filter(one => one[0] == "event").forEach(one => tell("ga4", [...one]));
    return push.apply(this, commands);
  };
  dataLayer.filter(one => one[0] == "event").forEach(one => tell("ga4", [...one]));
})();
