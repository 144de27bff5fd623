// Whether two drawings are the same.

import assert from "node:assert/strict";

/** Parts of a drawing in order: element, class, text, numbers. What is rounded in two languages may differ in the last digit. */
const partsOf = (drawing) =>
  [...drawing.replace(/<title>[^<]*<\/title>/g, "").matchAll(/<(\w+)([^>]*)>([^<]*)/g)].map(([, tag, attributes, text]) => ({
    words: `${tag} ${attributes.replace(/-?\d+(\.\d+)?/g, "#")} ${text}`,
    numbers: [...attributes.matchAll(/-?\d+(?:\.\d+)?/g)].map(Number),
  }));

export const assertSameDrawing = (drawing, expected, message = "") => {
  const [parts, others] = [partsOf(drawing), partsOf(expected)];
  assert.deepEqual(parts.map((part) => part.words), others.map((part) => part.words), message);
  parts.forEach((part, i) => part.numbers.forEach((number, j) => {
    assert.ok(Math.abs(number - others[i].numbers[j]) <= 0.11, `${message} ${part.words}: ${number}, ${others[i].numbers[j]}`);
  }));
};
