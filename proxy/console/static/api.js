// The server as the page uses it: the key, requests, and the stream of events.

const STORE = "trillama-key";
const RETRY_MS = [500, 1000, 2000, 5000];

let askForKey = async () => {};

/** `ask` shows the dialog and returns when a key was given. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const key = () => sessionStorage.getItem(STORE) ?? "";

export function useKey(value) {
  if (value) sessionStorage.setItem(STORE, value);
  else sessionStorage.removeItem(STORE);
}

export const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

/** The response, after a key was asked for if the server wants one. Throws an Error with the server's own words. */
export async function request(path, { method = "GET", body, signal } = {}) {
  const headers = { ...authorization(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, headers, body: text, signal, cache: "no-store" });
  if (response.status === 401) {
    await askForKey((await response.json()).detail);
    return request(path, { method, body, signal });
  }
  if (!response.ok) throw new Error((await response.json()).detail ?? `${response.status}`);
  return response;
}

export const json = async (path, options) => (await request(path, options)).json();

/** Calls `handlers[event](data)` for each event, until `signal` is aborted; connects again when the stream ends. */
export async function follow(path, handlers, connected, signal) {
  for (let failures = 0; !signal.aborted; ) {
    try {
      const response = await request(path, { signal });
      connected(true);
      for await (const [event, data] of events(response.body)) {
        failures = 0;
        handlers[event]?.(data);
      }
      connected(false, "the server ended the connection");
    } catch (error) {
      if (signal.aborted) return;
      connected(false, error.message);
    }
    await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const [event, data] = part.split("\n");
      yield [event.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
    }
  }
}
