// Requests to the server. While the server is gone, a banner on top of the page says so.

import { byId } from "./dom";

export class ServerError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    byId("gone").hidden = false;
    throw new ServerError("the server does not answer", 0);
  }
  byId("gone").hidden = true;
  if (answer.ok) return answer;
  const text = await answer.json().then(
    (body: { error?: string }) => body.error,
    () => null,
  );
  throw new ServerError(text ?? `the server answered ${answer.status}`, answer.status);
}

export async function get<T>(path: string): Promise<T> {
  return (await ask(path)).json() as Promise<T>;
}

export async function getBytes(path: string): Promise<ArrayBuffer> {
  return (await ask(path)).arrayBuffer();
}

export async function post<T>(path: string, body: object): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json() as Promise<T>;
}

export async function postPicture<T>(path: string, picture: Blob): Promise<T> {
  const headers = { "Content-Type": "application/octet-stream" };
  return (await ask(path, { method: "POST", headers, body: picture })).json() as Promise<T>;
}
