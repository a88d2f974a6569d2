// Portkey 1.15.2 answers 500 to every stream on Node 20 (its issues #1389 and #1550: it appends to
// immutable headers). This preload hands it answers with mutable headers, so that its streaming
// can be measured at all.
const original = globalThis.fetch;
globalThis.fetch = async (...request) => {
  const answer = await original(...request);
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers: new Headers(answer.headers) });
};
