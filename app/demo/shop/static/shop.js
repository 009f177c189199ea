// The shop's own script: cart, checkout, consent banner, and what it tells the pixel.
(() => {
  // calls before the pixel is there wait in a queue
  window.capi = window.capi || function () { (window.capi.q = window.capi.q || []).push(arguments); };
  const one = selector => document.querySelector(selector);
  const euros = amount => `${amount.toFixed(2)} €`;

  // -- cart: item id -> {item, quantity}

  const cart = () => JSON.parse(localStorage.getItem("shop.cart") || "{}");
  const items = () => Object.values(cart()).map(({item, quantity}) => ({...item, variants: undefined, quantity}));
  const worth = () => items().reduce((sum, item) => sum + item.price * item.quantity, 0);
  const shipping = () => worth() < +document.body.dataset.freeShipping ? +document.body.dataset.shipping : 0;
  const commerce = list => ({
    currency: "EUR", value: +list.reduce((sum, item) => sum + item.price * (item.quantity || 1), 0).toFixed(2), items: list
  });

  const showCount = () => {
    const count = items().reduce((sum, item) => sum + item.quantity, 0);
    one("#count").textContent = count;
    one("#count").hidden = !count;
  };

  // -- products: a category is another page to the visitor, and no other document

  const category = () => (location.pathname.match(/^\/c\/(.+)/) || [])[1] || "";

  const showCategory = () => {
    const wanted = category();
    for (const product of document.querySelectorAll(".products > li")) product.hidden = wanted && product.dataset.category != wanted;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.pathname == location.pathname) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (!one(".products")) return;
    one("#heading").textContent = wanted ? wanted[0].toUpperCase() + wanted.slice(1) : "Good things for every day";
    document.title = wanted ? `${one("#heading").textContent} · Nordhem` : "Nordhem";
  };

  const tellCategory = () => {
    const shown = [...document.querySelectorAll(".products > li:not([hidden])")].map(product => JSON.parse(product.dataset.item));
    const list = shown.map(item => ({...item, variants: undefined}));
    capi("track", "view_item_list", {currency: "EUR", list_id: category() || "all", items: list});
  };

  if (one(".products")) {
    document.addEventListener("click", event => {
      const link = event.target.closest("nav a, .name");
      if (!link || event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      history.pushState(null, "", link.href);
      showCategory();
      tellCategory();
    });
    addEventListener("popstate", () => { showCategory(); tellCategory(); });
    tellCategory();
  }

  // -- one product

  const product = one(".product");
  if (product) {
    const item = JSON.parse(product.dataset.item), {variants, ...told} = item;
    capi("track", "view_item", commerce([told]));
    one("#add").addEventListener("click", () => {
      const now = cart();
      now[item.item_id] = {item, quantity: (now[item.item_id]?.quantity || 0) + 1};
      localStorage.setItem("shop.cart", JSON.stringify(now));
      capi("track", "add_to_cart", commerce([told]));
      one("#to-cart").hidden = false;
      showCount();
    });
  }

  // -- cart and checkout

  if (one("#cart")) {
    const rows = items();
    one("#empty").hidden = rows.length > 0;
    one("#cart").hidden = one("#check-out").hidden = !rows.length;
    for (const item of rows) {
      const row = one("#cart tbody").insertRow();
      for (const text of [item.item_name, item.quantity, euros(item.price * item.quantity)]) row.insertCell().textContent = text;
      row.cells[1].className = row.cells[2].className = "number";
    }
    if (rows.length) capi("track", "view_cart", commerce(rows));
  }
  for (const place of document.querySelectorAll("#shipping")) place.textContent = euros(shipping());
  for (const place of document.querySelectorAll("#total")) place.textContent = euros(worth() + shipping());

  const form = one("#order");
  if (form) {
    capi("track", "begin_checkout", commerce(items()));
    form.addEventListener("submit", async event => {
      event.preventDefault();
      const said = localStorage.getItem("shop.consent");
      const pieces = Object.fromEntries(items().map(item => [item.item_id, item.quantity]));
      const answer = await fetch("/api/orders", {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify({
          cart: pieces,
          person: Object.fromEntries(new FormData(form)),
          consent: said ? {ad_storage: said, ad_user_data: said, ad_personalization: said, analytics_storage: said} : {}
        })
      }).catch(() => null);
      if (!answer || !answer.ok) {
        one("#problem").textContent = "That did not work. Is there something in the cart?";
        one("#problem").hidden = false;
        return;
      }
      localStorage.removeItem("shop.cart");
      location.href = `/thanks/${(await answer.json()).number}`;
    });
  }

  // The back end has told of the order under this event id; so does the pixel.
  const bought = one("#purchase");
  if (bought) {
    const {eventId, number, commerce: told} = bought.dataset;
    capi("track", "purchase", {...JSON.parse(told), event_id: eventId, transaction_id: number});
  }

  // -- consent

  const ask = show => { one("#banner").hidden = !show; };
  const answer = said => {
    localStorage.setItem("shop.consent", said);
    gtag("consent", "update", {ad_storage: said, ad_user_data: said, ad_personalization: said, analytics_storage: said});
    ask(false);
  };
  one("#accept").addEventListener("click", () => answer("granted"));
  one("#reject").addEventListener("click", () => answer("denied"));
  one("#ask").addEventListener("click", () => ask(true));
  ask(!localStorage.getItem("shop.consent"));

  // -- what this page told

  const view = document.body.dataset.view;
  const list = detail => {
    const row = one("#told tbody").insertRow(), link = document.createElement("a");
    row.insertCell().textContent = detail.event_name;
    link.href = `${view}/events/${encodeURIComponent(detail.event_id)}`;
    link.textContent = detail.event_id;
    link.className = "id";
    row.insertCell().append(link);
    const called = row.insertCell();
    one("#told b").textContent = one("#told tbody").rows.length;
    setTimeout(() => {
      const told = (window.tagCalls || []).filter(({call}) => JSON.stringify(call).includes(detail.event_id));
      called.textContent = told.map(({tag}) => tag).join(", ") || "none";
    }, 1000);
  };
  window.told.forEach(list);
  addEventListener("capi", ({detail}) => list(detail));

  showCount();
  showCategory();
  // before this script has come they would do nothing
  for (const button of document.querySelectorAll("main button")) button.disabled = false;
})();
