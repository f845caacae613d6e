// An EventSource that does not give up, and that the tabs of a user can share. It takes the place of EventSource:
//
//   import { SharedEventSource as EventSource } from '/client.js';
//   const news = new EventSource('/events/news', { share: 'everyone' });
//   news.onmessage = (event) => show(event.data);
//   news.ongap = (event) => warn(JSON.parse(event.data).lost); // Events that the server no longer has.
//
// What it does beyond EventSource:
// - Tabs with the same `share` key and the same URL use one connection (browsers allow six to a host over HTTP/1.1).
//   One tab leads: it reads the stream and passes each event on. Every other tab first reads the stream itself, and
//   follows the leading tab once it has all events that the leading tab has. When the leading tab closes, another tab
//   resumes from its own last event id. So events need ids, which a hub gives to all of them.
// - Without a `share` key each tab has its own connection. The key names for whom the page reads, such as a user's id,
//   because a leading tab passes on what its own cookie was allowed to read. When the login changes, close the
//   source and make one with the new key. 'everyone' is a key for what every visitor may read.
// - A connection that is silent for longer than three heartbeats is replaced. A phone that wakes up checks at once.
// - Reconnection backs off exponentially, with jitter, and waits as long as Retry-After says.
// - Where a proxy holds back a stream, or the browser cannot read one, it uses long-poll.
// - Status 204 and refusals such as 403 stop it. EventSource stops at other statuses too, such as 503.
//
// It reads the stream with `fetch`: an EventSource shows a page neither comments, which heartbeats are, nor a status.

const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];
const MIN_PAUSE = 100;              // ms before a reconnection, also after `retry: 0`.
const MAX_BACKOFF = 20_000;         // ms to which failures alone lengthen that pause.
const MAX_TIMER = 2 ** 31 - 1;      // ms; a browser's timer with more than that fires at once.
const POLLS_FOR = 10 * 60_000;      // ms of long-poll before a stream that was held back is tried again.
const TRY_AGAIN = [408, 425, 429];  // The statuses from 400 to 499 that are not a refusal.

export class SharedEventSource extends EventTarget {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSED = CLOSED;
  CONNECTING = CONNECTING;
  OPEN = OPEN;
  CLOSED = CLOSED;
  onopen = null;
  onmessage = null;
  onerror = null;
  ongap = null;

  #options;
  #state = CONNECTING;
  #last = '';           // The last event id: this tab has every event up to here, on whichever connection it came.
  #heard = Date.now();  // When a byte last came; in the future during a pause, when silence is expected.
  #own = null;          // Aborts this tab's own connection. Null while the tab follows another one.
  #unheard = false;     // A stream has been requested, and no byte has come yet.
  #failures = 0;
  #retry = 1_000;       // The reconnection time in ms, which the server may set.
  #notBefore = 0;       // When the server's Retry-After ends.
  #pollsUntil = 0;
  #channel = null;      // To and from the other tabs.
  #leads = false;
  #release = () => {};  // Releases the lock, so that another tab leads.
  #closed = new AbortController();

  /**
   * `withCredentials` means what it means to EventSource. `share` is the key under which tabs share a connection.
   * `poll: true` uses long-poll from the beginning. After `mute` ms without a first byte the source polls; after
   * `silence` ms (three heartbeats) without a byte it reconnects.
   */
  constructor(url, { withCredentials = false, share = null, poll = false, mute = 5_000, silence = 45_000 } = {}) {
    super();
    if (share !== null && (typeof share !== 'string' || share === '')) {
      throw new TypeError('share: a string that names for whom the page reads, as a user id');
    }
    this.url = new URL(url, globalThis.document?.baseURI ?? location.href).href;
    this.withCredentials = withCredentials;
    this.#options = { mute, silence };
    if (poll || !globalThis.TextDecoderStream) this.#pollsUntil = Infinity;
    for (const type of ['open', 'message', 'error', 'gap']) {
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }

    const { signal } = this.#closed;
    const timer = setInterval(() => this.#watch(silence), Math.min(1_000, mute / 4, silence / 4));
    signal.addEventListener('abort', () => clearInterval(timer));
    // Timers stop while a phone sleeps, and the connection may have been lost meanwhile.
    globalThis.document?.addEventListener('visibilitychange', () => this.#wake(), { signal });
    globalThis.addEventListener('online', () => this.#wake(), { signal });
    this.#connect();
    // Browsers have locks in secure contexts only: over plain HTTP from another machine, tabs do not share.
    if (share !== null && navigator.locks && globalThis.BroadcastChannel) this.#join(share);
  }

  get readyState() {
    return this.#state;
  }

  /** How events arrive: `stream` or `poll` on this tab's own connection, `shared` from another tab. */
  get transport() {
    return this.#own ? (this.#polls ? 'poll' : 'stream') : 'shared';
  }

  close() {
    this.#state = CLOSED;
    this.#own?.abort();
    this.#closed.abort();
    this.#channel?.close();
    this.#release();
  }

  // ---- Events, from either source ----

  /** Sets the last event id, dispatches the event if there is one, and passes both on to the tabs that follow. */
  #take(id, type, data) {
    if (this.#state === CLOSED) return; // The page closed it in a listener of the event before.
    const before = this.#last;
    this.#last = id;
    this.#tell({ before, id, type, data });
    if (type) {
      const { origin } = new URL(this.url);
      this.dispatchEvent(new MessageEvent(type, { data, lastEventId: id, origin }));
    } else if (this.#own && !this.#leads) {
      this.#channel?.postMessage({ asks: true }); // This tab may have all events that the leading one has.
    }
  }

  #enter(state) {
    if (this.#state === CLOSED) return;
    this.#state = state;
    this.#tell();
    if (state === CLOSED) this.close();
    this.dispatchEvent(new Event(state === OPEN ? 'open' : 'error'));
  }

  /** Records that bytes have arrived. */
  #arrived() {
    this.#heard = Date.now();
    this.#unheard = false;
    this.#failures = 0;
    if (this.#state === CONNECTING) this.#enter(OPEN);
  }

  #watch(patience) {
    const silence = Date.now() - this.#heard;
    if (this.#unheard && silence > this.#options.mute) {
      this.#pollsUntil = Date.now() + POLLS_FOR;
      this.#connect();
    } else if (silence > patience) {
      this.#pollNoMore();
      this.#connect(); // Also when the silent one is the leading tab.
    }
  }

  /** Returns to streams: when polls fail too, the network was gone, and no proxy held the stream back. */
  #pollNoMore() {
    if (this.#pollsUntil !== Infinity) this.#pollsUntil = 0;
  }

  /** Checks the connection at once: the page is visible again, or the network is back. */
  #wake() {
    if (Date.now() < this.#notBefore) return;
    if (this.#own && this.#state === CONNECTING && !this.#unheard) this.#connect();
    else this.#watch(this.#options.silence / 2);
  }

  // ---- This tab's own connection ----

  #connect() {
    this.#own?.abort();
    this.#own = new AbortController();
    this.#heard = Date.now();
    this.#unheard = false;
    this.#run(this.#own.signal);
  }

  get #polls() {
    return Date.now() < this.#pollsUntil;
  }

  /** Reads, and reconnects whenever that ends, until the signal aborts it. */
  async #run(signal) {
    while (!signal.aborted) {
      try {
        await (this.#polls ? this.#poll(signal) : this.#stream(signal));
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refusal) return this.#enter(CLOSED);
        this.#pollNoMore();
      }
      if (signal.aborted) return;
      this.#unheard = false;
      const retry = Math.max(this.#retry, MIN_PAUSE);
      const backoff = Math.min(retry * 2 ** this.#failures++, Math.max(retry, MAX_BACKOFF));
      const min = Math.max(backoff, this.#notBefore - Date.now());
      const wait = Math.min(min * (1 + Math.random() / 2), MAX_TIMER);
      this.#heard = Date.now() + wait;
      this.#enter(CONNECTING);
      await pause(wait, signal);
    }
  }

  /** Sends one request. The last event id goes into the query: as a field, it would need a CORS preflight. */
  async #ask(signal, method, accept) {
    const url = new URL(this.url);
    if (this.#last) url.searchParams.set('last_event_id', this.#last);
    if (accept === 'application/json') url.searchParams.set('poll', '');
    const response = await fetch(url, {
      method,
      signal,
      headers: { Accept: accept },
      cache: 'no-store',
      credentials: this.withCredentials ? 'include' : 'same-origin',
    });
    const { status } = response;
    const type = response.headers.get('Content-Type')?.split(';')[0].trim().toLowerCase();
    if (status === 200 && type === accept) return response;
    response.body?.cancel();
    if (status === 204 || (status >= 400 && status < 500 && !TRY_AGAIN.includes(status))) throw new Refusal();
    this.#notBefore = Date.now() + retryAfter(response);
    throw new Error(`${status}`);
  }

  async #stream(signal) {
    this.#unheard = true;
    const response = await this.#ask(signal, 'GET', 'text/event-stream');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const event = { id: this.#last, type: '', data: [] };
    let text = '';
    let afterCR = false; // The last read ended with CR, so an LF now belongs to the same line break.
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      this.#arrived();
      const lines = (text + (afterCR ? value.replace(/^\n/, '') : value)).split(/\r\n|\n|\r/);
      afterCR = value.endsWith('\r');
      text = lines.pop();
      for (const line of lines) this.#line(line, event);
    }
  }

  /** Processes one line of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). */
  #line(line, event) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (line === '') {
      const { id, type, data } = event;
      if (data.length) this.#take(id, type || 'message', data.join('\n'));
      else this.#take(id);
      Object.assign(event, { type: '', data: [] });
    } else if (field === '') {
      this.#tell(); // A comment, such as a heartbeat: it also shows the other tabs that the connection lives.
    } else if (field === 'data') {
      event.data.push(value);
    } else if (field === 'event') {
      event.type = value;
    } else if (field === 'id' && !value.includes('\0')) {
      event.id = value;
    } else if (field === 'retry' && /^\d+$/.test(value)) {
      this.#retry = Number(value);
    }
  }

  async #poll(signal) {
    // The response to HEAD comes at once, so it shows whether the server is there.
    await this.#ask(signal, 'HEAD', 'application/json');
    while (this.#polls && !signal.aborted) {
      this.#arrived();
      const asked = Date.now();
      const response = await this.#ask(signal, 'GET', 'application/json');
      const { events, last_event_id } = await response.json();
      if (signal.aborted) return;
      this.#arrived();
      for (const { id, event, data } of events) this.#take(id || this.#last, event, data);
      this.#take(last_event_id);
      // When too many clients wait, the server responds at once.
      if (!events.length && Date.now() - asked < 1_000) await pause(1_000 * (1 + Math.random()), signal);
    }
  }

  // ---- The other tabs. Each message carries the leading tab's last event id before and after, so that a tab that
  // ---- missed a message, such as one that slept, notices. ----

  #join(share) {
    const name = `tiny-sse ${JSON.stringify([share, this.withCredentials, this.url])}`;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    // The tab that holds the lock leads. When it is closed or crashes, the next tab in the queue gets the lock.
    const lead = () => {
      this.#leads = true;
      if (!this.#own) this.#connect();
      return new Promise((release) => (this.#release = release));
    };
    const { signal } = this.#closed;
    navigator.locks.request(name, { signal }, lead).catch(() => {}); // Closed while it waited.
  }

  #tell(message = { before: this.#last, id: this.#last }) {
    if (this.#leads) this.#channel.postMessage({ ...message, state: this.#state, heard: this.#heard });
  }

  #hear({ asks, before, id, type, data, state, heard = Date.now() }) {
    if (this.#state === CLOSED) return;
    if (asks) return this.#tell();
    if (this.#leads) return; // A late message of the tab that led before: this tab reads the same itself.
    if (this.#own) {
      // This tab keeps its own connection until it has all events that the leading tab has.
      if (state !== OPEN || !this.#last || !covers(this.#last, id)) return;
      this.#own.abort();
      this.#own = null;
      this.#unheard = false;
      this.#arrived();
      return;
    }
    this.#heard = heard; // During a pause of the leading tab, this tab expects silence too.
    const had = before !== this.#last && covers(this.#last, id); // From its own connection.
    if (!had && !covers(this.#last, before)) return this.#connect(); // It missed an event.
    if (!had) this.#take(id, type, data);
    if (state !== this.#state) this.#enter(state);
  }
}

/** The server has refused, and would refuse another attempt too. */
class Refusal extends Error {}

/** Returns how long a response asks to wait, in ms: Retry-After is a number of seconds or a date (RFC 9110 10.2.3). */
function retryAfter(response) {
  const value = response.headers.get('Retry-After') ?? '';
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Math.min(Math.max(0, ms) || 0, MAX_TIMER); // NaN for what is neither.
}

/** Returns whether a reader at one id has all events up to another. A hub's id is an epoch and a sequence number. */
function covers(ahead, id) {
  const [a, b] = [ahead, id].map((text) => /^([0-9a-f]{16})-(\d+)$/.exec(text));
  return ahead === id || (a !== null && b !== null && a[1] === b[1] && Number(a[2]) >= Number(b[2]));
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => resolve(clearTimeout(timer)));
  });
}
