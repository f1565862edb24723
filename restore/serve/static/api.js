// What the page asks of its server.
import { TEXTS } from "./texts.js";

async function checked(promise) {
  let answer;
  try {
    answer = await promise;
  } catch {
    throw new Error(TEXTS.unreachable);
  }
  if (answer.ok) return answer;
  let detail = `${answer.status}`;
  try {
    detail = (await answer.json()).detail;
  } catch {
    // no JSON: the status has to do
  }
  const error = new Error(detail);
  error.status = answer.status;
  error.retryAfter = Number(answer.headers.get("retry-after")) || 0;
  throw error;
}

export const getJSON = async (url) => (await checked(fetch(url))).json();
export const getBlob = async (url) => (await checked(fetch(url))).blob();
export const cancelJob = (job) => checked(fetch(job.url, { method: "DELETE" })).catch(() => null);

export async function preview(file) {
  return (await checked(fetch("/api/v1/preview", { method: "POST", body: file }))).blob();
}

// Begins a job, `given` a mask or hints as { part, blob }, or null; where the server has too much to do, tries again when it says.
export async function beginJob(task, file, given, options, wanted) {
  const query = new URLSearchParams({ task, ...options });
  for (;;) {
    const form = new FormData();
    form.append("file", file, file.name);
    if (given) form.append(given.part, given.blob, `${given.part}.png`);
    try {
      return await (await checked(fetch(`/api/v1/jobs?${query}`, { method: "POST", body: form }))).json();
    } catch (error) {
      if (![429, 503].includes(error.status) || !error.retryAfter || !wanted()) throw error;
      await new Promise((go) => setTimeout(go, 1000 * error.retryAfter));
    }
  }
}

// Calls `tell` with every state of a job; resolves with the last one.
export function follow(job, tell) {
  return new Promise((resolve) => {
    const source = new EventSource(`${job.url}/events`);
    let failures = 0;
    const end = (state) => {
      source.close();
      resolve(state);
    };
    source.onmessage = (event) => {
      failures = 0;
      const state = JSON.parse(event.data);
      tell(state);
      if (["done", "failed", "cancelled"].includes(state.stage)) end(state);
    };
    source.onerror = () => {
      failures += 1;
      if (failures > 3 || source.readyState === EventSource.CLOSED) {
        end({ ...job, stage: "failed", error: TEXTS.unreachable });
      }
    };
  });
}
