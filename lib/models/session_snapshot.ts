import type { LayerCache } from '../cache/layer_cache.js';
import type { Policy } from '../cache/policy.js';
import { FormatError } from '../errors.js';
import { type Description, decode, encode } from '../layers/snapshot.js';
import type { Llama } from './llama.js';
import type { Session } from './session.js';
import type { Running, SessionOptions } from './session_options.js';

/** The tensors of a layer's cache, by the names that a snapshot has for them. */
const names = ['keys', 'values', 'positions', 'scores', 'ranks'] as const;

/** What a snapshot says of a session beside its numbers. */
interface About {
	readonly model: string;
	readonly positions: 'original' | 'cache';
	readonly dtype: 'f32' | 'f16';
	readonly seen: readonly number[];
	readonly policies: readonly (Omit<Policy, 'size' | 'score'> & { size: number | null; score: string })[];
}

/** A session as bytes (layers/snapshot.ts says how they lie). Whole caches: 32 bits at a time, whatever they mean. */
export async function snapshotSession(session: Session, { caches, policies, seen, logits }: Running): Promise<Uint8Array> {
	const { model, batch, positions, dtype } = session;
	const about: About = {
		model: await model.hash(),
		positions,
		dtype,
		seen: [...seen],
		policies: policies.map((policy) => ({
			...policy,
			size: policy.size === Infinity ? null : policy.size,
			score: typeof policy.score === 'function' ? 'function' : policy.score,
		})),
	};
	const parts: Description[] = [];
	for (const cache of caches) {
		const tensors: Description['tensors'] = [];
		for (const name of names) {
			const tensor = cache.tensors[name];
			if (!tensor) continue;
			const bits = await tensor.read();
			const data = new Float32Array(bits.buffer, bits.byteOffset, bits.byteLength / 4);
			tensors.push({ name, shape: [data.length], data });
		}
		parts.push({ kind: 'cache', batch, length: cache.slots, tensors, parts: [] });
	}
	const tensors = [{ name: 'logits', shape: [logits.length], data: logits }];
	return encode({ kind: 'session', batch, length: Math.max(...seen), tensors, parts, about: { ...about } });
}

/** A cache as it was, once its numbers have been looked at: a place out of bounds must not reach native code. */
function restoreCache(cache: LayerCache, { length: slots, tensors }: Description, seen: Int32Array): void {
	const fail = (message: string): never => {
		throw new FormatError('snapshot', `layer ${cache.layer}: ${message}`);
	};
	if (cache.policy.size !== Infinity && slots !== cache.policy.size) fail(`has ${slots} slots, expected ${cache.policy.size}`);
	if (slots < Math.max(...seen) && cache.policy.size === Infinity) fail(`has ${slots} slots for ${Math.max(...seen)} tokens`);
	const data = new Map(tensors.map((tensor) => [tensor.name, tensor.data]));
	cache.resize(slots, data.get('keys')?.length ?? 0);
	for (const name of names) {
		const [into, numbers] = [cache.tensors[name], data.get(name)];
		if (!into) continue;
		if (!numbers || numbers.byteLength !== into.bytes) fail(`\`${name}\` has ${numbers?.byteLength ?? 0} bytes, expected ${into.bytes}`);
		if (name === 'positions' || name === 'ranks') {
			const places = new Int32Array(numbers!.buffer, numbers!.byteOffset, numbers!.length);
			const row = cache.choosers * slots;
			for (const [i, place] of places.entries()) {
				const end = name === 'ranks' ? slots : Math.max(slots, seen[Math.floor(i / row)]!);
				if (place < 0 || place >= end) fail(`\`${name}\`[${i}] is ${place}, expected 0 to ${end - 1}`);
			}
		}
		into.write(numbers!);
	}
}

/** @param make a new session of these options, whose running parts it hands to `fill` */
export async function restoreSession(
	model: Llama,
	blob: Uint8Array,
	cache: Policy | readonly Policy[] | undefined,
	make: (options: SessionOptions, fill: (running: Running) => void) => Session,
): Promise<Session> {
	const { kind, batch, tensors, parts, about } = decode(blob);
	const fail = (message: string): never => {
		throw new FormatError('snapshot', message);
	};
	if (kind !== 'session' || !about) fail(`is of kind ${kind}, expected session`);
	const { model: hash, positions, dtype, seen, policies } = about as unknown as About;
	const own = await model.hash();
	if (hash !== own) fail(`belongs to the model with hash ${String(hash).slice(0, 12)}…, expected ${own.slice(0, 12)}… (${model.path})`);
	if (!Array.isArray(seen) || seen.length !== batch || seen.some((n) => !Number.isInteger(n) || n < 0 || n >= 2 ** 31))
		fail('says of its sequences how long they are in no way that makes sense');
	if (!Array.isArray(policies) || policies.some((policy) => typeof policy !== 'object' || policy === null)) fail('names no policies');
	if (!cache && policies.some(({ score }) => score === 'function')) fail('ran under a policy of one’s own, expected it as `cache`');
	const stored = policies.map((policy) => ({ ...policy, size: policy.size ?? Infinity })) as unknown as Policy[];
	const cacheOptions = cache ?? stored;
	const { layers, vocabulary } = model.config;
	if (parts.length !== layers || stored.length !== layers)
		fail(`has ${parts.length} layers and ${stored.length} policies, expected ${layers}`);
	const logits = tensors.find(({ name }) => name === 'logits')?.data;
	if (logits?.length !== batch * vocabulary) fail(`has ${logits?.length ?? 0} logits, expected ${batch} × ${vocabulary}`);
	checkBound(model, cacheOptions, parts, { batch, dtype }, fail);
	if (cache) checkSame(policies, Array.isArray(cache) ? (cache as readonly Policy[]) : policies.map(() => cache as Policy), fail);
	try {
		return make({ cache: cacheOptions, batch, positions, dtype }, (running) => {
			running.logits.set(logits!);
			running.seen.set(seen);
			for (const [i, into] of running.caches.entries()) restoreCache(into, parts[i]!, running.seen);
		});
	} catch (error) {
		throw error instanceof FormatError ? error : new FormatError('snapshot', (error as Error).message, { cause: error });
	}
}

type Fail = (message: string) => never;

/** Nothing is made for sizes that the bytes do not bear out. */
function checkBound(
	{ config: { kvHeads, headDim } }: Llama,
	cache: Policy | readonly Policy[],
	parts: readonly Description[],
	{ batch, dtype }: { readonly batch: number; readonly dtype: unknown },
	fail: Fail,
): void {
	for (const [i, { tensors }] of parts.entries()) {
		const { size } = (Array.isArray(cache) ? cache[i] : cache) as Policy;
		const bytes = tensors.find(({ name }) => name === 'keys')?.data.byteLength ?? 0;
		const row = batch * kvHeads * headDim * (dtype === 'f16' ? 2 : 4);
		if (size !== Infinity && bytes !== size * row) fail(`layer ${i}: keys have ${bytes} bytes, expected ${size * row}`);
		if (batch > 1 && bytes < row) fail(`layer ${i}: keys have ${bytes} bytes for ${batch} sequences`);
	}
}

/** A session goes on under the policies that it ran under. */
function checkSame(stored: About['policies'], given: readonly Policy[], fail: Fail): void {
	const shown = ({ size, sinks, recent, heads, score, memory = 0 }: About['policies'][number] | Policy) =>
		JSON.stringify({
			size: size === Infinity ? null : size,
			sinks,
			recent,
			heads,
			score: typeof score === 'function' ? 'function' : score,
			memory,
		});
	if (given.length !== stored.length) fail(`ran under ${stored.length} policies, found ${given.length}`);
	for (const [i, policy] of stored.entries()) {
		if (shown(policy) !== shown(given[i]!)) fail(`layer ${i} ran under ${shown(policy)}, found ${shown(given[i]!)}`);
	}
}
