"""The demo's shop: a few pages with the pixel, and a back end that tells the server's copy of each order.

server.py   pages, orders, and the collector under a path of the shop's own origin, as deploy/nginx and deploy/caddy have it
pages/      what visitors see
static/     its style and script, and stand-ins for the tags of Meta, TikTok, Pinterest and Google, which keep to the page
"""
