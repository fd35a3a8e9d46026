// Speak with a vocoder exported by `gansound export --streaming`, in Node or in a browser.
//
//     npm install onnxruntime-node
//     node onnx_reader.mjs stream.onnx mel.npy speech.wav      // mel: bands x frames, float32, in the model's convention
//
// In a browser import Vocoder and give it onnxruntime-web, see onnx_reader.html. It is yours to use as you like (CC0).

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };

// One utterance at a time: push mel frames as they come, play what comes back, flush at the end.
export class Vocoder {
  // ort: onnxruntime-node or onnxruntime-web; bytes: of the file, a Uint8Array.
  static async open(ort, bytes) {
    const about = metadata(bytes);
    if (about.graph !== "streaming") {
      throw new Error("not a streaming graph; write one with: gansound export --streaming");
    }
    const session = await ort.InferenceSession.create(bytes, { intraOpNumThreads: 1 });
    return new Vocoder(ort, session, about);
  }

  constructor(ort, session, about) {
    Object.assign(this, { ort, session });
    this.melConvention = JSON.parse(about.mel ?? about.latent ?? about.pitched ?? about.code);
    this.states = JSON.parse(about.states);
    this.sampleRate = Number(about.sample_rate);
    this.hopLength = Number(about.hop_length);
    this.nMels = Number(about.n_mels);
    this.lookahead = Number(about.lookahead_samples); // samples
    this.unknown = BigInt(about.unknown_length);
    this.reset();
  }

  // Forget the utterance and begin another.
  reset() {
    this.frames = 0;
    this.state = this.states.map(({ dtype, shape }) => {
      const count = shape.reduce((a, b) => a * b, 1);
      return new this.ort.Tensor(dtype, new ARRAYS[dtype](count), [1, ...shape]);
    });
    this.setLength(this.unknown);
  }

  setLength(frames) {
    const at = this.states.findIndex(({ name }) => name === "length");
    this.state[at] = new this.ort.Tensor("int64", BigInt64Array.of(frames), [1]);
  }

  // n frames in, a Float32Array of nMels * n, band after band; the samples that are final out, full scale 1.
  async push(mel) {
    const frames = mel.length / this.nMels;
    if (!Number.isInteger(frames)) {
      throw new Error(`expected a multiple of ${this.nMels} numbers, bands x frames, got ${mel.length}`);
    }
    if (frames === 0) return new Float32Array(0);
    const feeds = { mel: new this.ort.Tensor("float32", mel, [1, this.nMels, frames]) };
    this.states.forEach(({ name }, i) => (feeds[`state.${name}`] = this.state[i]));
    const out = await this.session.run(feeds);
    this.state = this.states.map(({ name }) => out[`next.${name}`]);
    const before = this.frames * this.hopLength - this.lookahead; // where this audio begins in the utterance
    this.frames += frames;
    return out.audio.data.slice(Math.max(0, -before));
  }

  // End the utterance: the rest of its samples. Then begin another.
  async flush() {
    const frames = this.frames;
    this.setLength(BigInt(frames));
    const late = frames ? Math.ceil(this.lookahead / this.hopLength) : 0;
    const out = Math.max(0, frames * this.hopLength - this.lookahead);
    const rest = await this.push(new Float32Array(this.nMels * late));
    this.reset();
    return rest.slice(0, frames * this.hopLength - out);
  }
}

// Frames `from` to `to` of a mel of bands x frames.
export function cut(mel, bands, from, to) {
  const all = mel.length / bands;
  const n = Math.min(to, all) - from;
  const part = new Float32Array(bands * n);
  for (let band = 0; band < bands; band++) {
    part.set(mel.subarray(band * all + from, band * all + from + n), band * n);
  }
  return part;
}

// What a .npy file of float32 holds: its shape, and its numbers row after row.
export function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [length, start] = bytes[6] < 2 ? [view.getUint16(8, true), 10] : [view.getUint32(8, true), 12];
  const head = new TextDecoder().decode(bytes.subarray(start, start + length));
  if (!head.includes("'<f4'") || !head.includes("'fortran_order': False")) {
    throw new Error(`expected float32, row after row (numpy.ascontiguousarray), got ${head.trim()}`);
  }
  const shape = /\(([^)]*)\)/.exec(head)[1].split(",").filter((n) => n.trim()).map(Number);
  return { shape, data: new Float32Array(bytes.slice(start + length).buffer) };
}

// An ONNX file's metadata, which the runtimes for JavaScript don't give: field 14 of its protocol buffer, key and value.
export function metadata(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [field, entry] of fields(bytes)) {
    if (field !== 14) continue;
    const pair = Object.fromEntries(fields(entry));
    found[text.decode(pair[1])] = text.decode(pair[2]);
  }
  return found;
}

function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number();
    const kind = tag & 7;
    if (kind === 0) number();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = number();
      yield [tag >>> 3, bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("not an ONNX file");
  }
}

// Samples as the bytes of a 16-bit WAV.
export function wav(samples, sampleRate) {
  const bytes = new Uint8Array(44 + 2 * samples.length);
  const view = new DataView(bytes.buffer);
  const word = (at, letters) => bytes.set(new TextEncoder().encode(letters), at);
  word(0, "RIFF"), view.setUint32(4, bytes.length - 8, true), word(8, "WAVEfmt "), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true), view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true), view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  word(36, "data"), view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(Math.max(-1, Math.min(1, x)) * 32767), true));
  return bytes;
}

export function joined(parts) {
  const whole = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) whole.set(part, at), (at += part.length);
  return whole;
}

async function main([model, source, target]) {
  const { readFileSync, writeFileSync } = await import("node:fs");
  const { createRequire } = await import("node:module");
  const ort = createRequire(`${process.cwd()}/`)("onnxruntime-node");
  const vocoder = await Vocoder.open(ort, new Uint8Array(readFileSync(model)));
  const { shape, data } = readNpy(new Uint8Array(readFileSync(source)));
  if (shape.length !== 2 || shape[0] !== vocoder.nMels) {
    throw new Error(`${source}: expected a mel of (${vocoder.nMels}, frames), got (${shape})`);
  }
  const parts = [];
  for (let at = 0; at < shape[1]; at += 8) {
    parts.push(await vocoder.push(cut(data, vocoder.nMels, at, at + 8)));
  }
  parts.push(await vocoder.flush());
  writeFileSync(target, wav(joined(parts), vocoder.sampleRate));
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("onnx_reader.mjs")) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
