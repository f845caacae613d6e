// What client.js does in tabs, with the server of tests/browser_client.rs. Here a tab is a frame: it has its own document,
// and all that belongs to the document ends when the frame is removed.

import { check, done, equal, fail, pause } from '/check.js';

const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];

/** Of tabs that share a connection: these checks are not about users. */
const SHARED = { share: 'everyone' };

/** The name of the lock and the channel of tabs that share. */
const channelOf = (url) => `tiny-sse ${JSON.stringify(['everyone', false, url])}`;

/** A tab, and its events, each as one line of text. A check can give a function that makes the responses. */
class Tab {
  read = [];

  static async open(url, { respond, ...options } = {}) {
    const tab = new Tab();
    tab.frame = document.createElement('iframe');
    tab.frame.src = '/tab';
    await new Promise((resolve) => {
      tab.frame.onload = resolve;
      document.body.append(tab.frame);
    });
    tab.window = tab.frame.contentWindow;
    if (respond) tab.window.fetch = async (url, request) => respond(tab, new URL(url), request);
    tab.source = new tab.window.SharedEventSource(url, options);
    tab.source.onopen = () => tab.read.push('open');
    tab.source.onerror = () => tab.read.push('error');
    tab.source.onmessage = (event) => tab.read.push(event.data);
    return tab;
  }

  /** The events alone. */
  get events() {
    return this.read.filter((line) => line !== 'open' && line !== 'error');
  }

  close() {
    this.frame.remove();
  }
}

/** Waits until a condition is true. A check that waits too long fails. */
async function until(condition) {
  while (!(await condition())) await pause(10);
}

/** Opens tabs, and removes them after the check. */
async function using(tabs, run) {
  const opened = [];
  try {
    for (const [url, options] of tabs) opened.push(await Tab.open(url, options));
    await run(...opened);
  } finally {
    for (const tab of opened) tab.close();
  }
}

const post = async (path, body = '') => {
  const response = await fetch(path, { method: 'POST', body });
  if (!response.ok) fail(`${path}: ${response.status}`);
};
const number = async (path) => Number(await (await fetch(path)).text());
const publish = (topic, data) => post(`/publish/${topic}`, data);
const readers = (topic) => number(`/readers/${topic}`);
const visits = (name) => number(`/visits/${name}`);
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => `${from + at}`);
const shares = (tab) => tab.source.transport === 'shared' && tab.source.readyState === OPEN;

/** A stream that is still open after these pieces, each of which the client reads by itself. */
function streams(...pieces) {
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    start: (stream) => pieces.forEach((piece) => stream.enqueue(encoder.encode(piece))),
  });
  return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
}

const checks = {
  async client() {
    await check('it has the interface of EventSource', () =>
      using([['/events/face']], async (tab) => {
        const { source } = tab;
        const native = new EventSource('/events/face');
        native.close();
        for (const name of ['CONNECTING', 'OPEN', 'CLOSED']) {
          equal(source[name], EventSource[name]);
          equal(tab.window.SharedEventSource[name], EventSource[name]);
        }
        equal([source.url, source.withCredentials], [native.url, false]);
        equal(source.readyState, CONNECTING);
        await until(() => source.readyState === OPEN);
        const heard = [];
        const listener = (event) => heard.push(event);
        source.addEventListener('named', listener);
        await publish('face?event=named', 'one');
        await publish('face', 'two');
        await until(() => tab.events.length === 1);
        equal([tab.read, heard.length], [['open', 'two'], 1]);
        const [event] = heard;
        equal([event.type, event.data, event.origin], ['named', 'one', location.origin]);
        if (!/^[0-9a-f]{16}-\d+$/.test(event.lastEventId)) fail(event.lastEventId);
        source.removeEventListener('named', listener);
        source.close();
        equal(source.readyState, CLOSED);
        await publish('face', 'three');
        await until(async () => (await readers('face')) === 0);
        equal(tab.read, ['open', 'two']);
      }),
    );

    await check('data arrives as EventSource would have it', () =>
      using([['/events/texts']], async (tab) => {
        const native = new EventSource('/events/texts');
        const expected = [];
        native.onmessage = (event) => expected.push(event.data);
        await until(() => tab.source.readyState === OPEN && native.readyState === OPEN);
        const texts = ['', '\n', 'a\nb\n', 'CR\rCRLF\r\nLF\n', ': no comment', ' two  blanks', '世界 🦀 \u2028\u2029', 'x'.repeat(300_000)];
        for (const text of texts) await publish('texts', text);
        await until(() => tab.events.length === texts.length && expected.length === texts.length);
        equal(tab.events, expected);
        native.close();
      }),
    );

    await check('each line break ends a line at once, wherever a read ends', async () => {
      const cases = [
        [['data: a\n\n'], ['a']],
        [['data: a\r\n\r\n'], ['a']],
        [['data: a\r\r'], ['a']], // Complete with the second CR, although LF may follow.
        [['data: a\r', '\r'], ['a']],
        [['data: a\r', '\n\r', '\n', 'data: b\r\n\r'], ['a', 'b']], // An LF after a CR is no second line break.
        [['data: a\r', '\ndata: b\r', '\n\r', '\n'], ['a\nb']],
        [['data: a\n', '\r', '\n', '\n', 'data: b\n\n'], ['a', 'b']],
        [['data: a\r', 'data: b\r', '\r'], ['a\nb']],
        [['data: a\n\nda', 'ta: b\n', '\ndata: not ended\n'], ['a', 'b']],
      ];
      for (const [pieces, expected] of cases) {
        await using([['/', { respond: () => streams(...pieces) }]], async (tab) => {
          await until(() => tab.events.length >= expected.length);
          await pause(20); // For an event too many.
          equal([pieces, tab.events], [pieces, expected]);
        });
      }
    });

    await check('a media type has no case, and has parameters', async () => {
      for (const [type, is] of [
        ['Text/Event-Stream', OPEN],
        ['text/event-stream;charset=utf-8', OPEN],
        ['TEXT/EVENT-STREAM ; charset="UTF-8"', OPEN],
        ['text/event-streams', CONNECTING],
        ['text/html', CONNECTING],
      ]) {
        let requests = 0;
        const respond = () => {
          requests += 1;
          return new Response(streams(': hello\n').body, { headers: { 'Content-Type': type } });
        };
        await using([['/', { respond }]], async (tab) => {
          await until(() => tab.read.length);
          equal([type, tab.source.readyState, requests], [type, is, 1]);
        });
      }
    });

    await check('no reconnection time makes a loop', async () => {
      for (const [retry, most] of [
        ['0', 6], // 100 ms, and twice as much after each failure.
        ['2147483647', 2], // The longest that a server of this crate sends; a timer takes no more than that.
        ['99999999999999999999999', 2],
      ]) {
        let requests = 0;
        const respond = () => {
          requests += 1;
          if (requests > 1) return new Response('', { status: 500 });
          return new Response(`retry: ${retry}\n\n`, { headers: { 'Content-Type': 'text/event-stream' } });
        };
        await using([['/', { respond }]], async (tab) => {
          await until(() => tab.read.includes('error'));
          await pause(1_000);
          if (requests > most) fail(`retry ${retry}: ${requests} requests within a second`);
        });
      }
    });

    await check('Retry-After is waited for, also by a tab that wakes up', async () => {
      for (const after of [() => '2', () => new Date(Date.now() + 3_000).toUTCString()]) {
        const times = [];
        const respond = (tab) => {
          times.push(Date.now());
          if (times.length === 1) return new Response('', { status: 429, headers: { 'Retry-After': after() } });
          return streams('data: back\n\n');
        };
        await using([['/', { respond }]], async (tab) => {
          await until(() => tab.read.includes('error'));
          tab.window.dispatchEvent(new Event('online'));
          await until(() => tab.events.length);
          const waited = times[1] - times[0];
          if (waited < 1_990) fail(`${after()}: back after ${waited} ms`); // The date has no milliseconds.
        });
      }
      // A value that is neither a number nor a date is ignored.
      for (const after of ['', '-1', 'soon']) {
        let requests = 0;
        const respond = () => {
          requests += 1;
          return requests > 1 ? streams(': hello\n') : new Response('', { status: 503, headers: { 'Retry-After': after } });
        };
        await using([['/', { respond }]], (tab) => until(() => tab.source.readyState === OPEN));
      }
    });

    await check('a tab that follows waits as long as the leading tab', async () => {
      let requests = 0;
      const beats = [];
      const epoch = '0123456789abcdef';
      let drop;
      const respond = () => {
        requests += 1;
        if (requests > 2) return new Response('', { status: 503, headers: { 'Retry-After': '600' } });
        const body = new ReadableStream({
          start(stream) {
            stream.enqueue(new TextEncoder().encode(`id: ${epoch}-1\n\n`));
            const beat = setInterval(() => stream.enqueue(new TextEncoder().encode(': heartbeat\n')), 50);
            beats.push(beat);
            drop = () => {
              clearInterval(beat);
              stream.close();
            };
          },
        });
        return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
      };
      const options = { ...SHARED, silence: 1_000, respond };
      await using([['/waits', options]], async (first) => {
        await until(() => first.source.readyState === OPEN);
        const dropFirst = drop;
        await using([['/waits', options]], async (second) => {
          await until(() => shares(second));
          dropFirst();
          await until(() => requests > 2);
          await pause(2_000); // Longer than a tab accepts unexpected silence.
          equal([requests, second.source.readyState], [3, CONNECTING]);
        });
      });
      beats.forEach(clearInterval);
    });

    await check('two tabs share one connection', () =>
      using([['/events/two', SHARED], ['/events/two', SHARED]], async (first, second) => {
        await until(() => shares(first) !== shares(second));
        await until(async () => (await readers('two')) === 1);
        for (const text of numbers(1, 20)) await publish('two', text);
        await until(() => first.events.length >= 20 && second.events.length >= 20);
        equal(first.events, numbers(1, 20));
        equal(second.events, numbers(1, 20));
        equal([await readers('two'), second.read], [1, ['open', ...numbers(1, 20)]]);
      }),
    );

    await check('without a key each tab gets what its own cookie stands for', async () => {
      document.cookie = 'user=ann';
      await using([['/mine']], async (ann) => {
        await until(() => ann.source.readyState === OPEN);
        await until(async () => (await readers('ann')) === 1);
        document.cookie = 'user=ben';
        await using([['/mine']], async (ben) => {
          await until(async () => (await readers('ben')) === 1);
          for (let n = 1; n <= 20; n += 1) await publish('ann', 'private');
          await publish('ben', 'for ben');
          await until(() => ben.events.length > 0 && ann.events.length === 20);
          equal([ben.events, await readers('ann'), await readers('ben')], [['for ben'], 1, 1]);
        });
      });
    });

    await check('tabs share where they give the same key, and nothing goes to the holder of another', async () => {
      document.cookie = 'user=cid';
      await using([['/mine', { share: 'cid' }], ['/mine', { share: 'cid' }]], async (first, second) => {
        await until(() => shares(first) !== shares(second));
        document.cookie = 'user=dan';
        await using([['/mine', { share: 'dan' }]], async (dan) => {
          await until(() => dan.source.readyState === OPEN);
          for (let n = 1; n <= 20; n += 1) await publish('cid', 'private');
          await publish('dan', 'for dan');
          await until(() => first.events.length >= 20 && second.events.length >= 20);
          await until(() => dan.events.length > 0);
          equal([dan.events, await readers('cid'), await readers('dan')], [['for dan'], 1, 1]);
        });
        // The same page logs in again, as another user.
        first.source.close();
        await until(() => second.source.transport === 'stream');
        const read = [];
        document.cookie = 'user=eve';
        const source = new first.window.SharedEventSource('/mine', { share: 'eve' });
        source.onmessage = (event) => read.push(event.data);
        await until(() => source.readyState === OPEN);
        await publish('eve', 'for eve');
        await until(() => read.length > 0);
        equal([read, await readers('eve')], [['for eve'], 1]);
        source.close();
      });
      const { SharedEventSource } = await import('/client.js');
      for (const share of [true, '', 7]) {
        try {
          new SharedEventSource('/mine', { share }).close();
        } catch (error) {
          equal(error.name, 'TypeError');
          continue;
        }
        fail(`${JSON.stringify(share)} counts as a key`);
      }
    });

    await check('a tab that joins gets the beginning, and nothing twice', () =>
      using([['/events/join?last_event_id=earliest', SHARED]], async (first) => {
        await until(() => first.source.readyState === OPEN);
        await post('/numbers/join?n=300');
        await until(() => first.events.length > 50);
        await using([['/events/join?last_event_id=earliest', SHARED]], async (second) => {
          await until(() => first.events.length === 300 && second.events.length === 300);
          await until(() => shares(first) !== shares(second));
          equal([first.events, second.events], [numbers(1, 300), numbers(1, 300)]);
        });
      }),
    );

    await check('the leading tab is closed, and the others go on without loss', () =>
      using([['/events/heir', SHARED], ['/events/heir', SHARED], ['/events/heir', SHARED]], async (first, second, third) => {
        await until(() => shares(second) && shares(third) && !shares(first));
        await post('/numbers/heir?n=400');
        await until(() => third.events.length > 50);
        first.close();
        await until(() => third.events.length > 250);
        second.source.close();
        await until(() => third.events.length === 400);
        equal(third.events, numbers(1, 400));
        equal(shares(third), false);
        await until(async () => (await readers('heir')) === 1);
      }),
    );

    await check('a tab that missed something notices, and loses nothing', () =>
      using([['/events/asleep', SHARED], ['/events/asleep', SHARED]], async (first, second) => {
        await until(() => shares(first) !== shares(second));
        const channel = new BroadcastChannel(channelOf(first.source.url));
        await publish('asleep', '1');
        await until(() => second.events.length === 1);
        // As if it had slept through an event that the others have.
        const epoch = '0123456789abcdef';
        channel.postMessage({ before: `${epoch}-7`, id: `${epoch}-8`, type: 'message', data: 'forged', state: OPEN });
        await until(async () => (await visits('asleep')) >= 3);
        await publish('asleep', '2');
        await until(() => first.events.length >= 2 && second.events.length >= 2);
        equal([first.events, second.events], [['1', '2'], ['1', '2']]);
        channel.close();
      }),
    );

    await check('a leading tab that has gone silent is not waited for', async () => {
      // This page plays the leading tab, and then falls asleep.
      const name = channelOf(new URL('/events/sleeper', location).href);
      const channel = new BroadcastChannel(name);
      let release;
      navigator.locks.request(name, () => new Promise((resolve) => (release = resolve)));
      await using([['/events/sleeper', { ...SHARED, silence: 500 }]], async (tab) => {
        let id;
        tab.source.addEventListener('message', (event) => (id = event.lastEventId));
        await until(() => tab.source.readyState === OPEN);
        await publish('sleeper', '1');
        await until(() => id);
        channel.postMessage({ before: id, id, state: OPEN });
        await until(() => shares(tab));
        await publish('sleeper', '2');
        await until(() => tab.events.length === 2);
        equal([tab.events, shares(tab)], [['1', '2'], false]);
      });
      release();
      channel.close();
    });

    await check('a gap has its own callback', () =>
      using([['/events/gap?last_event_id=0123456789abcdef-7']], async (tab) => {
        const gaps = [];
        tab.source.ongap = (event) => gaps.push(JSON.parse(event.data));
        await until(() => gaps.length === 1);
        equal([gaps[0].from, gaps[0].lost], ['0123456789abcdef-7', null]);
        await publish('gap', 'after');
        await until(() => tab.events.length === 1);
        equal(tab.events, ['after']);
      }),
    );

    await check('204 stops it, in all tabs', () =>
      using([['/events/end', SHARED], ['/events/end', SHARED]], async (first, second) => {
        await until(() => shares(first) !== shares(second));
        await until(async () => (await readers('end')) === 1);
        await post('/end/end', 'the last one');
        await until(() => first.source.readyState === CLOSED && second.source.readyState === CLOSED);
        const before = await visits('end');
        await pause(300);
        equal([first.events, second.events], [['the last one'], ['the last one']]);
        equal(await visits('end'), before);
      }),
    );

    await check('an answer that says no stops it', () =>
      using([['/status/403']], async (tab) => {
        await until(() => tab.source.readyState === CLOSED);
        equal([tab.read, await visits('403')], [['error'], 1]);
      }),
    );

    await check('a server in trouble is asked again', () =>
      using([['/status/503']], async (tab) => {
        await until(async () => (await visits('503')) === 3);
        equal(tab.source.readyState, CONNECTING);
        equal(tab.read.slice(0, 2), ['error', 'error']);
      }),
    );

    await check('a connection that is silent for too long is given up', () =>
      using([['/silent/silent', { silence: 200 }]], async (tab) => {
        await until(async () => (await visits('silent')) >= 3);
        await post('/numbers/silent?n=100');
        await until(() => tab.events.length === 100);
        equal(tab.events, numbers(1, 100));
      }),
    );

    await check('heartbeats keep a connection', () =>
      using([['/beats/beats', { silence: 600 }]], async (tab) => {
        await pause(1_500);
        equal([await visits('beats'), tab.read], [1, ['open']]);
      }),
    );

    await check('who wakes up looks at once', () =>
      using([['/silent/wake', { silence: 3_000 }]], async (tab) => {
        await until(() => tab.source.readyState === OPEN);
        tab.window.dispatchEvent(new Event('online'));
        equal(await visits('wake'), 1); // Heard a moment ago.
        await pause(1_600);
        tab.window.dispatchEvent(new Event('online'));
        await until(async () => (await visits('wake')) === 2);
      }),
    );

    await check('long-poll by force', () =>
      using([['/events/poll', { ...SHARED, poll: true }], ['/events/poll', { ...SHARED, poll: true }]], async (first, second) => {
        await until(() => first.source.readyState === OPEN && second.source.readyState === OPEN);
        await until(async () => (await number('/polls')) >= 2);
        await post('/numbers/poll?n=300');
        await until(() => first.events.length >= 300 && second.events.length >= 300);
        equal([first.events, second.events], [numbers(1, 300), numbers(1, 300)]);
        equal([await readers('poll'), first.source.transport], [0, 'poll']);
        const gap = new Promise((resolve) => (first.source.ongap = resolve));
        await publish('poll?event=gap', '{"lost":1}');
        await gap;
      }),
    );

    // The hub lives on, so nothing may be missing. The first server ends its streams, the second one drops them.
    await check('the server restarts', () =>
      using([['/events/away', SHARED], ['/events/away', SHARED]], async (first, second) => {
        await until(() => shares(first) !== shares(second));
        await post('/numbers/away?n=600');
        for (const generation of [2, 3]) {
          // The response may be lost with the server.
          post(`/restart?generation=${generation - 1}`).catch(() => {});
          await until(async () => (await number('/generation').catch(() => 0)) === generation);
        }
        await until(() => first.events.length >= 600 && second.events.length >= 600);
        equal([first.events, second.events], [numbers(1, 600), numbers(1, 600)]);
        if (!first.read.includes('error') || !second.read.includes('error')) fail('nobody noticed');
      }),
    );
  },

  // All of this comes through a proxy that keeps event streams to itself.
  async mute() {
    await check('it polls where streams stay mute', () =>
      using([['/events/mute', { ...SHARED, mute: 500 }], ['/events/mute', { ...SHARED, mute: 500 }]], async (first, second) => {
        await until(() => first.source.readyState === OPEN && second.source.readyState === OPEN);
        equal(first.source.transport, 'poll');
        await until(async () => (await number('/polls')) >= 1);
        await post('/numbers/mute?n=200');
        await until(() => first.events.length >= 200 && second.events.length >= 200);
        equal([first.events, second.events], [numbers(1, 200), numbers(1, 200)]);
        equal([first.read[0], second.read[0]], ['open', 'open']);
      }),
    );
  },
};

await checks[document.body.dataset.checks]();
await done();
