"""Kinds of source text."""

import pytest

from ptp_train.data.categories import category

TEXTS = {
    "comments": ["/**\n * Returns the size.\n * @returns bytes\n */\nsize(): number;", "// a\n// b", ""],
    "tests": ["it('adds', () => {\n  expect(add(1, 2)).toBe(3);\n});\n", "describe('a', () => {\n test('b', f)"],
    "JSON": ['{\n  "name": "x",\n  "files": [\n    "dist"\n  ],\n  "version": 1\n}', 'me": "x",\n  "main": "a:b",\n'],
    "classes": [
        "export declare class A {\n  private x;\n  static of(): A;\n}",
        "  protected a: string;\n  get b(): number",
    ],
    "interfaces": ["interface A {\n  readonly a: string;\n  b?: number;\n}", "  a: string;\n  'b-c': number;\n"],
    "functions": ["export declare function f(a: string): void;\nexport declare const g: () => void;", "f(a: A): B;\n"],
    "other": ["export * from './a.js';\nimport b from 'b';"],
}


@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in TEXTS.items() for text in texts])
def test_text_has_the_kind_of_most_of_its_lines(kind, text):
    assert category(text) == kind
