// capistream's pixel: tells the collector what happens on a page. docs/pixel.md is its manual.
//
//   <script async src="/m/capi.js" data-key="WRITE_KEY"></script>
//   capi("track", "purchase", {transaction_id: "1001", value: 59.98, currency: "EUR"})
//
// It is served without its comments and indentation (app/collector/pixel.py), so a comment has lines of its own.
// An event goes this way: track -> live (and storage) -> wait for consent and tags -> post -> answered, so forgotten.
((win, doc, nav) => {
  if (win.capi?.pixel) return;

  // an answer may take so long, in milliseconds
  const PATIENCE = 15e3;
  const SIGNALS = ["ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"];
  const COMMERCE = /^(value|currency|tax|shipping|discount|coupon|(transaction|refund|list)_id|affiliation|items|search_term|payment_type|shipping_tier|method|list_name)$/;
  // our name, what the tags of Meta and TikTok call it, and Pinterest's: as in sinks/
  const NAMES = `page_view PageView pagevisit
view_item ViewContent viewcontent
view_item_list ViewContent viewcategory
search Search search
add_to_cart AddToCart addtocart
add_to_wishlist AddToWishlist addtowishlist
begin_checkout InitiateCheckout initiatecheckout
add_payment_info AddPaymentInfo addpaymentinfo
purchase Purchase checkout
generate_lead Lead lead
sign_up CompleteRegistration signup
subscribe Subscribe subscribe`;

  const script = doc.currentScript, set = script?.dataset || {};
  const options = {
    key: set.key,
    to: script && new URL(set.to || "events", script.src).href,
    pass: set.pass || "",
    pages: set.pages != "off",
    store: set.store != "off",
    // of requests to another origin: include, for cookies
    credentials: set.credentials || "same-origin"
  };

  // -- helpers; what fails in here must not reach the page

  const safe = work => (...given) => {
    try { return work(...given); } catch (e) {}
  };
  const copy = value => JSON.parse(JSON.stringify(value));
  const later = (work, ms) => setTimeout(safe(work), ms);
  const on = (target, name, work) => target.addEventListener(name, safe(work), true);
  const storage = work => safe(work)(safe(() => win.localStorage)());
  // randomUUID is for https alone
  const uuid = () => crypto.randomUUID?.() || URL.createObjectURL(new Blob).slice(-36);

  // -- consent: what Google's consent mode, TCF and GPP say by now

  const consent = nav.globalPrivacyControl ? {gpc: true} : {};
  // does anybody ask; has the person decided; for how many milliseconds to wait for that; does TCF let us store
  let asks, decided = false, wait = 500, stores, tcf, gpp;

  const heard = command => {
    const [name, kind, said] = command;
    if (name != "consent" || !said) return;
    asks = 1;
    // where defaults differ by region, nobody here knows which of them holds: what denies does
    for (const signal of SIGNALS)
      if (said[signal] && (kind == "update" || !consent[signal] || !decided && said[signal] == "denied")) consent[signal] = said[signal];
    wait = Math.max(wait, Math.min(said.wait_for_update || 0, 5e3));
    if (kind == "update") decide();
  };

  const listen = () => {
    const layer = win.dataLayer = win.dataLayer || [], push = layer.push;
    layer.forEach(safe(heard));
    layer.push = function (...commands) {
      commands.forEach(safe(heard));
      return push.apply(this, commands);
    };
  };

  // Their stubs may come after us, so this is asked again and again.
  const look = safe(() => {
    if (!tcf && win.__tcfapi) {
      tcf = asks = 1;
      win.__tcfapi("addEventListener", 2, safe(said => {
        const applies = said.gdprApplies !== false;
        if (applies) {
          if (said.eventStatus == "cmpuishown" || !said.tcString) return;
          consent.tcf = said.tcString;
        }
        stores = !applies || !!said.purpose?.consents?.[1];
        decide();
      }));
    }
    if (!gpp && win.__gpp) {
      gpp = asks = 1;
      win.__gpp("addEventListener", safe(said => {
        if (said.pingData.signalStatus != "ready") return;
        consent.gpp = said.pingData.gppString;
        decide();
      }));
    }
  });

  const denied = () => consent.ad_storage == "denied" || stores === false;
  const granted = () => consent.ad_storage == "granted" || consent.analytics_storage == "granted" || stores;

  const decide = () => {
    decided = true;
    keep();
    // Told without consent before: told again, for the click ids in its address. A denial is final for an id.
    if (view?.told && granted() && view.told != JSON.stringify(consent)) {
      const {told, consent: _, ...again} = view;
      if (/ad_storage":"denied.*analytics_storage":"denied/.test(told)) again.event_id = uuid();
      add(view = again);
    }
    pump();
  };

  // The decision at the time of the event counts, or the first after it. A later denial takes away.
  const consentOf = event => {
    const said = {...event.consent || consent};
    if (decided) for (const signal of SIGNALS) if (consent[signal] == "denied") said[signal] = "denied";
    return said;
  };

  // -- the queue: `live` are the events of this page; storage has them, too, for the pages after it

  let live = [];
  const PREFIX = "capi:";

  // An event that waits in storage holds no name of the browser; where somebody asks for consent, it waits for that.
  const mayStore = () => options.store && (!asks || granted() || decided && !tcf && gpp && !denied());

  // Without the person in clear, who stays in memory.
  const keep = left => storage(box => live.forEach(({user, ...event}) => {
    const name = PREFIX + event.event_id;
    mayStore() ? box.setItem(name, JSON.stringify({...event, left})) : box.removeItem(name);
  }));

  const add = event => {
    live = [...live, event].slice(-100);
    keep();
  };

  // What is to be told again under the same id was not told yet.
  const forget = ({event_id}) => {
    live = live.filter(one => one.event_id != event_id || !one.told);
    storage(box => box.removeItem(PREFIX + event_id));
  };

  // Events of pages that are gone, the oldest first; 100 of the last 7 days. A page that did not say that it goes has 10 s to
  // send its own.
  const stored = () => {
    const now = Date.now(), found = [];
    storage(box => Object.keys(box).forEach(name => {
      if (name.indexOf(PREFIX)) return;
      const event = safe(JSON.parse)(box[name]);
      if (!(now - event?.time < 7 * 864e5)) box.removeItem(name);
      else if (!live.some(one => one.event_id == event.event_id)) found.push(event);
    }));
    found.sort((a, b) => a.time - b.time).splice(0, found.length - 100).forEach(forget);
    return found.filter(event => event.left || now - event.time > 1e4);
  };

  // -- sending

  let timer, busy, gone, pause = 0, quiet = 0;

  // A consent manager has its time, and the platforms' scripts have 2 s.
  const ready = event => {
    const age = Date.now() - event.time;
    return (!asks || decided || age > wait) && (age > 2e3 || !Object.keys(TAGS).some(name => state(name) == "loading"));
  };

  const pump = async () => {
    if (busy || !options.key || !options.to) return;
    look();
    clearTimeout(timer);
    const silent = quiet - Date.now();
    if (silent > 0) return timer = later(pump, silent);
    if (!live.every(ready)) timer = later(pump, 100);
    if (!live.some(ready) && !stored().length) return;
    busy = 1;
    // until when not to try again
    quiet = Date.now() + (await locked(send).catch(send).catch(() => 1e3));
    busy = 0;
    pump();
  };

  // One tab at a time: two first requests at once would make two visitors of one.
  const locked = async work => {
    const LOCK = "capi.lock";
    // a tab that hangs is not waited for
    if (nav.locks) return nav.locks.request(LOCK, {signal: win.AbortSignal?.timeout?.(2 * PATIENCE)}, work);
    const now = Date.now(), mine = now + PATIENCE + " " + uuid(), holder = () => storage(box => box[LOCK]);
    const until = parseInt(holder());
    if (until > now && until <= now + PATIENCE) return 500;
    storage(box => box[LOCK] = mine);
    // What one tab writes reaches the others a moment later. Of those that found no lock, who wrote last has it.
    await new Promise(done => later(done, 200));
    if ((holder() || mine) != mine) return 500;
    const next = await work();
    storage(box => box.removeItem(LOCK));
    return next;
  };

  const body = events => {
    const batch = [];
    let size = 0;
    for (const event of events) {
      const {left, told, passed, ...sent} = {...event, consent: consentOf(event), tags: event.tags || tags(event)};
      size += JSON.stringify(sent).length;
      // browsers send 64 KiB after a page is gone, and no more
      if (batch.length > 19 || batch.length && size > 6e4) break;
      batch.push(sent);
      // sent once, it says the same when it is sent again
      Object.assign(event, sent, {told: JSON.stringify(sent.consent)});
    }
    return {writeKey: options.key, sent_at: Date.now(), decided, batch};
  };

  const send = async () => {
    const told = body([...stored(), ...live.filter(ready)]);
    if (!told.batch.length) return 0;
    keep();
    const status = await post(JSON.stringify(told)).then(answer => answer.status, () => 0);
    // no answer, or one that asks for patience; another refusal would be the same the next time
    if (!status || status == 429 || status > 499) return pause = Math.min(pause * 2 || 1e3, 6e4);
    told.batch.forEach(forget);
    return pause = 0;
  };

  // A content type that needs no preflight.
  const post = body => fetch(options.to, {
    method: "POST", body,
    keepalive: body.length < 6e4,
    credentials: options.credentials,
    headers: {"Content-Type": "text/plain"},
    signal: win.AbortSignal?.timeout?.(PATIENCE)
  });

  // The page goes: all that has no answer is sent, also what is under way. It stays stored, as no answer will be seen.
  const leave = () => {
    if (gone) return;
    gone = 1;
    const told = body([...stored(), ...live]);
    if (told.batch.length) nav.sendBeacon(options.to, JSON.stringify(told));
    keep(1);
  };

  // -- the platforms' own tags

  // name -> what the page calls; has its script come? Before that a stub collects the calls.
  const TAGS = {
    meta: ["fbq", fbq => fbq.callMethod],
    tiktok: ["ttq", ttq => !ttq.length],
    pinterest: ["pintrk", pintrk => !pintrk.queue.length],
    ga4: ["gtag", () => Object.keys(win.google_tag_manager || {}).some(id => /^GT?-/.test(id))]
  };

  const state = name => {
    const [global, came] = TAGS[name], tag = win[global];
    return safe(came)(tag) ? "ran" : tag ? "loading" : "absent";
  };

  const tags = ({event_id, passed}) => {
    const found = {};
    for (const name in TAGS) {
      const now = state(name), ran = now == "ran";
      found[name] = {ran, blocked: now == "loading" || undefined, event_id: ran && passed?.[name] ? event_id : undefined};
    }
    return found;
  };

  // Their copy gets our id. What is called before a script has come waits in its stub.
  const pass = event => {
    const {event_name, event_id, commerce = {}, custom} = event, {items = [], value, currency} = commerce;
    const [, ours, pins] = NAMES.split("\n").map(line => line.split(" ")).find(([name]) => name == event_name) || [];
    const to = (name, call) => {
      if (!options.pass.includes(name) || !win[TAGS[name][0]]) return;
      (event.passed = event.passed || {})[name] = 1;
      safe(call)(win[TAGS[name][0]]);
    };
    const common = {value, currency, order_id: commerce.transaction_id};
    const product = {...common, search_string: commerce.search_term, content_type: "product"};
    to("ga4", gtag => gtag("event", event_name, {...custom, ...commerce, event_id}));
    if (!ours || denied()) return;
    to("meta", fbq => fbq("track", ours, {
      ...product,
      content_ids: items.map(one => one.item_id),
      contents: items.map(one => ({id: one.item_id, quantity: one.quantity || 1, item_price: one.price}))
    }, {eventID: event_id}));
    // its page view takes no id
    if (event_name != "page_view") to("tiktok", ttq => ttq.track(ours, {
      ...product,
      contents: items.map(one => ({content_id: one.item_id, content_name: one.item_name, quantity: one.quantity || 1, price: one.price}))
    }, {event_id}));
    to("pinterest", pintrk => pintrk("track", pins, {
      ...common, event_id, search_query: commerce.search_term,
      line_items: items.map(one => ({product_id: one.item_id, product_name: one.item_name, product_quantity: one.quantity || 1, product_price: one.price}))
    }));
  };

  // -- what a page can call

  let user, url, referrer = doc.referrer, view;

  const track = (event_name, given) => {
    const {event_id: chosen, ...fields} = copy(given || {}), event_id = chosen || uuid();
    const event = {
      event_name, event_id, time: Date.now(),
      context: {url: location.href, referrer, title: doc.title, language: nav.language}
    };
    for (const name in fields) {
      if (/^(ids|labels|user)$/.test(name)) event[name] = fields[name];
      else {
        const part = COMMERCE.test(name) ? "commerce" : "custom";
        (event[part] = event[part] || {})[name] = fields[name];
      }
    }
    if (user) event.user = {...user, ...event.user};
    if (decided) event.consent = {...consent};
    pass(event);
    add(event);
    if (event_name == "page_view") view = event;
    win.dispatchEvent(new CustomEvent("capi", {detail: {event_name, event_id}}));
    later(pump, 50);
    return event_id;
  };

  // Another address is another page; a fragment is one only where it is a route.
  const page = () => {
    const now = location.href.replace(/#(?!!?\/).*/, "");
    if (now == url) return;
    referrer = url || referrer;
    url = now;
    track("page_view");
  };

  const CALLS = {
    track,
    page: given => track("page_view", given),
    user: given => { user = given; },
    consent: said => heard(["consent", "update", said]),
    init: given => {
      Object.assign(options, given);
      pump();
    }
  };

  const start = () => {
    const waiting = win.capi?.q || [];
    for (const [name, given] of waiting) if (name == "init") Object.assign(options, given);
    win.capi = safe((name, ...given) => CALLS[name](...given));
    win.capi.pixel = 1;
    safe(listen)();
    look();
    if (options.pages) {
      // a router often sets the title after the address
      for (const name of ["pushState", "replaceState"]) {
        const original = history[name];
        history[name] = function (...given) {
          later(page, 50);
          return original.apply(this, given);
        };
      }
      on(win, "popstate", () => later(page, 50));
      page();
    }
    for (const call of waiting) win.capi(...call);
    on(win, "online", () => {
      pause = quiet = 0;
      pump();
    });
    on(win, "pagehide", leave);
    // on a telephone this may be the last that a page hears
    on(doc, "visibilitychange", () => {
      if (doc.hidden) return leave();
      gone = 0;
      pump();
    });
    on(win, "pageshow", ({persisted}) => {
      gone = 0;
      // out of the back-forward cache
      if (!persisted || !options.pages) return;
      url = 0;
      page();
    });
    pump();
  };

  doc.prerendering ? on(doc, "prerenderingchange", start) : safe(start)();
})(window, document, navigator);
