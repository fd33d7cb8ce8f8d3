/** Decodes SentencePiece's spelling, in which `<0x0A>` is one byte and U+2581 is a space. */
export function fromSentencePiece(name: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name)?.[1];
  return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : new TextEncoder().encode(name.replaceAll('\u2581', ' '));
}

/** Decodes GPT-2's spelling. A name with characters outside the alphabet stands for itself. */
export function fromByteAlphabet(name: string): Uint8Array {
  const bytes = Array.from(name, (character) => byteAlphabet.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(name) : Uint8Array.from(bytes as number[]);
}

/**
 * GPT-2's spelling of the 256 bytes by visible characters: printable Latin-1 characters stand for themselves, and the
 * other bytes are numbered from U+0100 (`bytes_to_unicode` in openai/gpt-2 encoder.py).
 */
const byteAlphabet: ReadonlyMap<string, number> = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const others = bytes.filter((byte) => !printable(byte));
  const character = (byte: number) => String.fromCharCode(printable(byte) ? byte : 256 + others.indexOf(byte));
  return new Map(bytes.map((byte) => [character(byte), byte]));
})();
