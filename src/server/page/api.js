// Talks to the server: requests with the key, errors as one kind, and streams of server-sent events.

export class ApiFailure extends Error {
  /** `status` 0: no answer came. `retryAfter`: seconds, 0 where the server named none. */
  constructor(message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function failureOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // The status says enough.
  }
  const message = typeof error === "string" ? error : error.message;
  return new ApiFailure(message || `The server answered ${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: String(error.code ?? error.type ?? ""),
    retryAfter: Number(response.headers.get("retry-after")) || 0,
  });
}

/** An answer with a good status, or throws ApiFailure; an AbortError stays one. */
export async function request(path, { key = "", body, signal } = {}) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiFailure("The server does not answer.");
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

/** The data of each event in a stream of bytes, as the standard cuts them. */
export async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The chunks of a streamed completion. Throws ApiFailure for an error in it, and when it ends before its end. */
export async function* completionChunks(path, options) {
  const response = await request(path, options);
  try {
    for await (const data of eventsOf(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiFailure(chunk.error.message ?? "The server failed.", { status: 500, code: chunk.error.code });
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ApiFailure || error.name === "AbortError") throw error;
    throw new ApiFailure("The connection broke. The answer is not complete.");
  }
  throw new ApiFailure("The connection ended. The answer is not complete.");
}
