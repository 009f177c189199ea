// The stubs that the platforms' base codes put on a page, and the consent that nobody has given yet. Their libraries are
// stand-ins of ours: they keep what they are called with on the page, and send nothing anywhere.
(() => {
  window.dataLayer = window.dataLayer || [];
  window.gtag = function () { dataLayer.push(arguments); };
  gtag("consent", "default", {
    ad_storage: "denied", ad_user_data: "denied", ad_personalization: "denied", analytics_storage: "denied", wait_for_update: 500
  });
  // what somebody said on an earlier visit
  const said = localStorage.getItem("shop.consent");
  if (said) gtag("consent", "update", {ad_storage: said, ad_user_data: said, ad_personalization: said, analytics_storage: said});

  const fbq = window.fbq = function (...call) { fbq.callMethod ? fbq.callMethod(...call) : fbq.queue.push(call); };
  fbq.queue = [];
  fbq("init", "1234567890");

  const ttq = window.ttq = window.ttq || [];
  for (const method of ["page", "track", "identify"]) ttq[method] = (...call) => { ttq.push([method, ...call]); };
  ttq.page();

  const pintrk = window.pintrk = (...call) => { pintrk.queue.push(call); };
  pintrk.queue = [];
  pintrk("load", "2612345678901");

  // what the pixel tells, for the list at the foot of each page
  window.told = [];
  addEventListener("capi", ({detail}) => told.push(detail));

  for (const name of ["meta", "tiktok", "pinterest", "google"]) {
    const script = document.createElement("script");
    script.src = `/static/tags/${name}.js`;
    script.async = true;
    document.head.append(script);
  }
})();
