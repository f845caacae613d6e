// What the pages of the examples look like: in frames of two widths, in both colour schemes, and in every state.

import { check, done, equal, fail, pause } from '/check.js';

const { page, next, token } = document.body.dataset;
const [NARROW, WIDE] = [390, 1_200];

const MIN_CONTRAST = 4.5; // WCAG 2.2, 1.4.3.
const SIZES = [13, 15, 20, 32]; // Of texts in CSS pixels. The dashboard has more, because its numerals fit their panels.
const WEIGHTS = ['300', '400', '600'];
const WIDTHS = ['704px', '960px', '1760px']; // A column of text, columns of figures, and the dashboard.
const STATES = ['live', 'calm', 'reconnecting'];

/** What is done to each page, so that it shows all that it can. */
const scenes = {
  async auth(frame) {
    for (const button of frame.all('main button')) {
      button.click();
      await until(() => button.parentElement.querySelector('pre').textContent);
    }
    frame.one('#token').value = token;
    frame.one('form button').click();
    await until(() => frame.one('#login').value.includes('Logged in'));
  },
  async channels(frame) {
    await post('/events/general', 'hello');
    await until(() => frame.one('li'));
    frame.one('#messages').append(Object.assign(frame.document.createElement('li'), { className: 'gap', textContent: 'gap' }));
  },
  dashboard: (frame) => until(() => frame.one('.value')),
  async fallback(frame) {
    await until(() => frame.all('section').every((section) => section.querySelector('i')));
    frame.one('dl > div').className = 'some';
  },
  datastar: () => post('/notes', new URLSearchParams({ note: 'a note' })),
  async hub(frame) {
    const events = new EventSource('/events?topic=doors');
    await until(() => frame.one('#topics').textContent.includes('doors'));
    await until(() => frame.one('.figures').textContent.includes('per second'));
    events.close();
  },
  htmx: () => post('/notes', new URLSearchParams({ note: 'a note' })),
  journal: (frame) => until(() => frame.all('li').length >= 2),
  async notifications(frame) {
    frame.one('[value=ann]').click();
    await until(() => frame.one('#state').textContent === 'live');
    await post('/notify/ann', 'first');
    await until(() => frame.one('.new'));
    frame.one('#read').click();
    await until(() => !frame.one('.new'));
    await post('/notify/ann', 'second');
    await until(() => frame.one('.new'));
    frame.one('#notice').textContent = 'A notice.';
    frame.one('#out').hidden = false;
  },
  async progress(frame) {
    frame.one('#start').click();
    await until(() => frame.one('#start').disabled);
    frame.one('#notice').textContent = 'A notice.';
  },
  async resilient(frame) {
    await until(() => frame.one('li'));
    frame.one('li').className = 'trouble';
    frame.one('#again').hidden = false;
  },
  async tokens(frame) {
    frame.one('#ask').click();
    await until(() => frame.one('#note').textContent);
  },
};

/** A page in a frame of this width. */
class Frame {
  static async open(width) {
    const frame = new Frame();
    frame.element = document.createElement('iframe');
    frame.element.src = '/';
    frame.element.style = `width: ${width}px; height: 800px; border: 0`;
    await new Promise((resolve) => {
      frame.element.onload = resolve;
      document.body.append(frame.element);
    });
    frame.window = frame.element.contentWindow;
    frame.document = frame.element.contentDocument;
    frame.window.onerror = (message) => (frame.error = message);
    return frame;
  }

  one(selector) {
    return this.document.querySelector(selector);
  }

  all(selector) {
    return [...this.document.querySelectorAll(selector)];
  }

  /** Switches to the rules of a colour scheme, whatever the system has. */
  scheme(scheme) {
    this.document.documentElement.style.colorScheme = scheme;
    for (const rule of [...this.document.styleSheets].flatMap((sheet) => [...sheet.cssRules])) {
      if (rule.conditionText?.includes('prefers-color-scheme') || rule.schemeRule) {
        rule.schemeRule = true;
        rule.media.mediaText = scheme === 'dark' ? 'all' : 'not all';
      }
    }
  }

  /** Each text that shows, with the computed style that it has. */
  *texts() {
    for (const element of this.all('body *')) {
      if (!element.checkVisibility({ visibilityProperty: true }) || /^(SCRIPT|STYLE)$/.test(element.tagName)) continue;
      const style = (pseudo) => this.window.getComputedStyle(element, pseudo);
      const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
      const text = own.map((node) => node.textContent.trim()).join(' ').trim() || element.value;
      if (text && element.tagName !== 'PROGRESS') yield { element, text, style: style(null) };
      if (element.placeholder) yield { element, text: element.placeholder, style: style('::placeholder') };
      for (const pseudo of ['::before', '::after']) {
        const { content } = style(pseudo);
        if (/^".+"$/.test(content)) yield { element, text: content, style: style(pseudo) };
      }
    }
  }

  /** The contrast of a text and what is behind it, as WCAG defines it. */
  contrast({ element, style }) {
    let opacity = 1;
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor, opacity: own } = this.window.getComputedStyle(at);
      opacity *= Number(own);
      layers.unshift(rgba(backgroundColor));
    }
    const back = layers.reduce((below, above) => blend(below, above), [255, 255, 255]);
    const [red, green, blue, alpha] = rgba(style.color);
    const front = blend(back, [red, green, blue, alpha * opacity]);
    const [dark, light] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  }
}

function rgba(color) {
  const numbers = color.match(/[\d.]+/g).map(Number);
  if (!/^rgba?\(/.test(color)) fail(`what colour is ${color}?`);
  return numbers.length === 4 ? numbers : [...numbers, 1];
}

function blend(below, [red, green, blue, alpha]) {
  return [red, green, blue].map((channel, at) => channel * alpha + below[at] * (1 - alpha));
}

function luminance(color) {
  const [red, green, blue] = color.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

async function until(condition) {
  while (!condition()) await pause(20);
}

const post = (path, body) => fetch(path, { method: 'POST', body });

const frames = [];
await check('it runs without an error, at both widths', async () => {
  for (const width of [NARROW, WIDE]) {
    const frame = await Frame.open(width);
    if (page === 'notifications') frame.window.localStorage.user = '';
    frames.push(frame);
    await scenes[page](frame);
    equal(frame.error, undefined);
    const { scrollWidth, clientWidth } = frame.document.documentElement;
    equal([width, scrollWidth <= clientWidth], [width, true]);
  }
});

await check('each text has enough contrast, in every state, also on disabled buttons', async () => {
  const low = new Set();
  let texts = 0;
  for (const frame of frames) {
    for (const scheme of ['light', 'dark']) {
      frame.scheme(scheme);
      for (const state of STATES) {
        for (const disabled of [false, true]) {
          // All of this within one task, so that the page changes nothing meanwhile.
          frame.one('#state').className = state;
          for (const button of frame.all('button')) button.disabled = disabled;
          for (const text of frame.texts()) {
            texts += 1;
            const contrast = frame.contrast(text);
            if (contrast >= MIN_CONTRAST) continue;
            low.add(`${scheme} ${state} ${text.element.tagName} "${text.text.slice(0, 40)}": ${contrast.toFixed(2)}`);
          }
        }
      }
    }
  }
  if (texts < 48) fail(`only ${texts} texts`);
  if (low.size) fail([...low].join('\n'));
});

await check('its sizes, weights, widths and times are those of all pages', async () => {
  const others = new Set();
  for (const frame of frames) {
    const { maxWidth } = frame.window.getComputedStyle(frame.document.body);
    if (!WIDTHS.includes(maxWidth)) others.add(`width ${maxWidth}`);
    for (const { element, text, style } of frame.texts()) {
      const size = Number.parseFloat(style.fontSize);
      if (!SIZES.includes(size) && !element.closest('.value')) others.add(`${size}px: ${text}`);
      if (!WEIGHTS.includes(style.fontWeight)) others.add(`weight ${style.fontWeight}: ${text}`);
      if (element.tagName === 'TIME' && !/^\d\d:\d\d:\d\d$/.test(text)) others.add(`time ${text}`);
    }
  }
  if (others.size) fail([...others].join('\n'));
});

await check('it links to its source and to the next lesson', async () => {
  const [frame] = frames;
  for (const path of ['/main.rs', '/next.rs']) {
    const link = frame.one(`footer a[href="${path}"]`);
    const text = await (await fetch(link.href)).text();
    if (!text.startsWith('//! ')) fail(`${path}: ${text.slice(0, 80)}`);
    const [, runs] = /cargo run --example (\w+)/.exec(text) ?? [];
    equal([path, runs], [path, path === '/main.rs' ? page : next]);
    if (!link.textContent.includes(runs)) fail(`${path} is called ${link.textContent}`);
  }
});

await done();
