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
  upload: file => request(`/api/pictures?name=${encodeURIComponent(file.name)}`, { method: 'POST', headers: { 'Content-Type': file.type || 'image/png' }, body: file }),
  image: (id, side) => `/api/pictures/${id}/image?side=${side}`,
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
};

const STORE = 'concept-cam-unsent';

export const unsent = {
  all() { try { return JSON.parse(localStorage.getItem(STORE) ?? '[]'); } catch { return []; } },
  put(list) { try { localStorage.setItem(STORE, JSON.stringify(list)); } catch { /* private windows keep nothing */ } },
  add(correction) { this.put([...this.all().filter(item => item.id !== correction.id), correction]); },
  remove(id) { this.put(this.all().filter(item => item.id !== id)); },
};
