// What became of each test, for prove.mjs: a line of JSON a test, without suites and what was not asked for.

export default async function* results(events) {
  for await (const { type, data } of events) {
    if (!["test:pass", "test:fail"].includes(type) || data.details.type === "suite" || data.skip !== undefined) continue;
    const { error } = data.details;
    yield `${JSON.stringify({ title: data.name, failure: error ? String(error.cause?.message ?? error.message) : null })}\n`;
  }
}
