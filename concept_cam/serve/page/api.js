// Talks to the server; corrections that could not be sent wait in this browser and are sent again under the same id.

export class ApiError extends Error {
  constructor(status, code, message, body) { super(message); this.status = status; this.code = code; this.body = body; }
}

async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: 'same-origin', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'offline', 'the server does not answer; is the command still running?');
  }
  const body = answer.headers.get('content-type')?.startsWith('application/json') ? await answer.json() : null;
  if (!answer.ok) throw new ApiError(answer.status, body?.error?.code ?? 'http', body?.error?.message ?? `status ${answer.status}`, body);
  return body;
}

const post = (path, data, options = {}) =>
  request(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(data), ...options });

export const api = {
  state: () => request('/api/state'),
  pictures: (offset, limit, search) => request(`/api/pictures?offset=${offset}&limit=${limit}&search=${encodeURIComponent(search)}`),
  titled: title => request(`/api/pictures?limit=1&title=${encodeURIComponent(title)}`),
  upload: file => request(`/api/pictures?name=${encodeURIComponent(file.name)}`, { method: 'POST', headers: { 'Content-Type': file.type || 'image/png' }, body: file }),
  image: (id, side, version) => `/api/pictures/${id}/image?side=${side}${version ? `&v=${version}` : ''}`,
  // A busy server is asked again, a little later each time.
  async ask(question, signal) {
    for (let pause = 400; ; pause *= 2) {
      try {
        return await post('/api/ask', question, { signal });
      } catch (error) {
        if (error.code !== 'busy' || pause > 4000) throw error;
        await new Promise(done => setTimeout(done, pause));
      }
    }
  },
  next: question => post('/api/next', question),
  corrections: id => request(`/api/corrections?picture=${id}`),
  correct: correction => post('/api/corrections', correction),
  undo: (id, person) => post('/api/corrections/undo', { id, person }),
  limits: () => request('/api/limits'),
  keepLimits: () => post('/api/limits', {}),
  teach: data => post('/api/taught', data),
  async export(format) {
    const answer = await fetch(`/api/export/${encodeURIComponent(format)}`, { credentials: 'same-origin' }).catch(() => null);
    if (!answer) throw new ApiError(0, 'offline', 'the server does not answer; is the command still running?');
    if (!answer.ok) throw new ApiError(answer.status, 'http', (await answer.json().catch(() => null))?.error?.message ?? `status ${answer.status}`);
    return { name: /filename="([^"]+)"/.exec(answer.headers.get('content-disposition') ?? '')?.[1] ?? format, content: await answer.blob() };
  },
};

const STORE = 'concept-cam-unsent';

// Corrections that the server has not got yet, in order. This tab holds them, and the browser keeps a copy for the day after a crash.
// They name the place that they are meant for: another folder may be served at this address later.
export class Unsent {
  constructor(place) { this.place = place; this.held = new Map(); this.tab = `${Date.now()}-${Math.random()}`; }
  kept() { try { return JSON.parse(localStorage.getItem(STORE) ?? '[]').filter(item => item && item.correction); } catch { return []; } }
  keep(list) { try { localStorage.setItem(STORE, JSON.stringify(list)); } catch { /* private windows keep nothing; a full store neither */ } }
  add(item) {
    const own = { at: Date.now(), ...item, place: this.place, tab: this.tab };
    this.held.set(own.correction.id, own);
    this.keep([...this.kept().filter(other => other.correction.id !== own.correction.id), own]);
  }
  // While a person is asked about it, no other tab may ask too.
  hold(id) { this.keep(this.kept().filter(item => item.correction.id !== id)); }
  remove(id) { this.held.delete(id); this.keep(this.kept().filter(item => item.correction.id !== id)); }
  // Those of this tab, and what other tabs left behind: a tab at work has sent its own within seconds.
  all() {
    const left = this.kept().filter(item => item.place === this.place && item.tab !== this.tab && Date.now() - item.at > 15000);
    return [...left, ...this.held.values()].sort((a, b) => a.at - b.at);
  }
  of(mark) { return [...this.held.values()].filter(item => item.mark === mark); }
}
