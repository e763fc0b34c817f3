/* Keeps the page, the graphs and onnxruntime-web on the device, so that it works offline. */

const VERSION = "@VERSION@";
const FILES = "@FILES@";
const CACHE = `dfd-edge-${VERSION}`;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(CACHE);
      await cache.addAll(FILES.map((name) => new Request(name, { cache: "reload" })));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const names = await caches.keys();
      const old = names.filter((name) => name.startsWith("dfd-edge-") && name !== CACHE);
      await Promise.all(old.map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const inside = url.href.startsWith(self.registration.scope);
  if (event.request.method !== "GET" || !inside) {
    event.respondWith(Response.error());
    return;
  }
  event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  const name = request.mode === "navigate" ? "index.html" : request;
  let found = await cache.match(name, { ignoreSearch: true });
  if (!found) {
    found = await fetch(request);
    // What is loaded on demand, such as the build for GPUs, is kept as well.
    if (found.ok) await cache.put(request, found.clone());
  }
  return isolated(found);
}

/** The response, isolated from other origins: browsers then let the graphs use threads. */
function isolated(response) {
  if (!response.ok) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
