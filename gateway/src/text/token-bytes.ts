/** Decodes SentencePiece's spelling, in which `<0x0A>` is one byte and U+2581 is a space. */
export function fromSentencePiece(name: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name)?.[1];
  return byte ? Uint8Array.of(Number.parseInt(byte, 16)) : new TextEncoder().encode(name.replaceAll('\u2581', ' '));
}

/** Decodes GPT-2's spelling. A name with characters outside the alphabet stands for itself. */
export function fromByteAlphabet(name: string): Uint8Array {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) {
    const byte = byteAlphabet[name.charCodeAt(i)];
    if (byte === undefined) return new TextEncoder().encode(name);
    bytes[i] = byte;
  }
  return bytes;
}

/**
 * Bytes by the code of the character that spells them in GPT-2. Printable Latin-1 characters stand for themselves, and
 * the other bytes are numbered from U+0100 (`bytes_to_unicode` in openai/gpt-2 encoder.py).
 */
const byteAlphabet: readonly (number | undefined)[] = (() => {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 255 && byte !== 173);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const others = bytes.filter((byte) => !printable(byte));
  const alphabet = new Array<number | undefined>(256 + others.length).fill(undefined);
  for (const byte of bytes) alphabet[printable(byte) ? byte : 256 + others.indexOf(byte)] = byte;
  return alphabet;
})();
