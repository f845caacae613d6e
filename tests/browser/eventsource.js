// What the EventSource of a browser does with the streams of tests/browser.rs, which has a route for each check.

import { Stream, check, done, equal, fail, pause } from '/check.js';

const OPEN = EventSource.OPEN;
const CLOSED = EventSource.CLOSED;

/** Opens a stream for one check. */
async function using(stream, run) {
  try {
    await run(stream);
  } finally {
    stream.close();
  }
}

/** Returns how many requests there were for this stream. */
async function visits(name) {
  return Number(await (await fetch(`/visits/${name}`)).text());
}

// Longer than the default of any browser. The other checks run meanwhile.
const retry = check('a retry field sets the time until the reconnect', () =>
  using(new Stream('/stream/retry'), async (stream) => {
    await stream.next('open');
    await stream.next('error');
    const left = performance.now();
    equal((await stream.next()).data, 'back');
    const away = performance.now() - left;
    // Timers may round down by a millisecond or two.
    if (away < 3_995) fail(`it came back after ${away} ms`);
  }),
);

await check('open comes before the first event', () =>
  using(new Stream('/stream/open'), async (stream) => {
    await stream.next('open');
    equal(stream.source.readyState, OPEN);
    equal(stream.rest, []);
    await fetch('/go/open', { method: 'POST' });
    const message = await stream.next();
    equal([message.type, message.data, message.lastEventId], ['message', 'hello', '']);
    equal(message.origin, location.origin);
  }),
);

await check('named events reach their listeners alone', () =>
  using(new Stream('/stream/named', ['message', 'weather', 'wétter 🌦']), async (stream) => {
    equal((await stream.next('weather')).data, 'rain');
    equal((await stream.next('wétter 🌦')).data, 'Regen');
    equal((await stream.next()).data, 'the end');
    equal(stream.rest, ['open']);
  }),
);

await check('data arrives as it was sent, its line breaks as LF', () =>
  using(new Stream('/stream/texts'), async (stream) => {
    const texts = await (await fetch('/texts.json')).json();
    if (texts.length < 10) fail('there are no texts');
    for (const text of texts) {
      equal((await stream.next()).data, text.replace(/\r\n|\r/g, '\n'));
    }
  }),
);

await check('an event of one mebibyte arrives whole', () =>
  using(new Stream('/stream/large'), async (stream) => {
    const { data } = await stream.next();
    equal(data.length, 1024 * 1024);
    for (let at = 0; at < data.length; at++) {
      if (data.charCodeAt(at) !== 97 + (at % 26)) fail(`it is wrong at ${at}`);
    }
  }),
);

await check('lastEventId stays until another id comes', () =>
  using(new Stream('/stream/ids'), async (stream) => {
    const seen = [];
    for (let i = 0; i < 5; i++) {
      const message = await stream.next();
      seen.push([message.data, message.lastEventId]);
    }
    equal(seen, [
      ['none', ''],
      ['first', '1'],
      ['without an id', '1'],
      ['after an id alone', 'ü 🦀'],
      ['forgotten', ''],
    ]);
  }),
);

await check('a stream that the server ended goes on from Last-Event-ID', () =>
  using(new Stream('/stream/resume'), async (stream) => {
    // The server sends back what it was asked for, and ends the stream after each event.
    equal((await stream.next()).data, 'from the start');
    equal((await stream.next()).data, 'after ü1');
    equal((await stream.next()).data, 'after ü2');
  }),
);

await check('the header goes before the query', () =>
  using(new Stream('/stream/resume?last_event_id=ü7'), async (stream) => {
    equal((await stream.next()).data, 'after ü7');
    equal((await stream.next()).data, 'after ü8');
  }),
);

await check('204 stops it', () =>
  using(new Stream('/stream/stop'), async (stream) => {
    equal((await stream.next()).data, 'the last one');
    await stream.next('error'); // The stream has ended.
    while (stream.source.readyState !== CLOSED) await stream.next('error');
    await pause(200); // Ten times its reconnection time.
    equal(await visits('stop'), 2);
    equal(stream.source.readyState, CLOSED);
  }),
);

await check('a page does not see heartbeats that are comments', () =>
  using(new Stream('/stream/heartbeat'), async (stream) => {
    equal((await stream.next()).data, 'after a while');
    equal(stream.rest, ['open']);
    const text = await (await fetch('/stream/heartbeat')).text();
    if (!text.startsWith(': connected\n: heartbeat\n: heartbeat\n')) fail(`there were none: ${text}`);
    if (!text.endsWith(': heartbeat\ndata: after a while\n\n')) fail(`they came with blank lines: ${text}`);
  }),
);

await check('fetch reads the response to a POST as it arrives', async () => {
  const answer = await fetch('/stream/answer', { method: 'POST', body: 'one two three' });
  equal(answer.headers.get('content-type'), 'text/event-stream');
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (const word of ['one', 'two', 'three']) {
    // The server waits for this before it sends the word.
    await fetch('/go/answer', { method: 'POST' });
    while (!text.endsWith(`data: ${word}\n\n`)) {
      const { value, done } = await reader.read();
      if (done) fail(`it ended after ${text}`);
      text += value;
    }
  }
  equal((await reader.read()).done, true);
});

await check('the server restarts, cleanly and not', () =>
  using(new Stream('/stream/away'), async (stream) => {
    equal((await stream.next()).data, 'server 1, from the start');
    equal(stream.rest, ['open']);
    for (const [next, before] of [[2, 1], [3, 2]]) {
      // The response may be lost with the server.
      fetch(`/restart?number=${before}`, { method: 'POST' }).catch(() => {});
      equal((await stream.next()).data, `server ${next}, after ${before}`);
      equal(stream.source.readyState, OPEN);
    }
    // For each restart the end of the stream, and at least one attempt that fails.
    const errors = stream.rest.filter((type) => type === 'error').length;
    if (errors < 4) fail(`the server was not away: ${stream.rest}`);
  }),
);

await retry;
await done();
