import type { Fields } from './fields.js';
import { limits, type Rope } from './pretrained.js';
import { type RopeScaling, ropeFrequencies, yarnMagnitude } from './rope.js';

/**
 * Rotary positions as a config.json gives them: `rope_theta` and `rope_scaling`, or both in `rope_parameters`; the kind of scaling is
 * under `rope_type`, in older files `type`.
 * @throws FormatError a kind that oplus does not know, or numbers that make no sense
 */
export function readRope(config: Fields, headDim: number, context: number): Rope {
	const parameters = config.object('rope_parameters');
	const given = parameters ?? config.object('rope_scaling');
	for (const fields of [config, given]) {
		if (fields && fields.number('partial_rotary_factor', { otherwise: 1 }) !== 1) {
			throw fields.refuse('partial_rotary_factor', '1 (all numbers of a head turn)');
		}
	}
	const theta = (parameters?.has('rope_theta') ? parameters : config).number('rope_theta', { least: 1, most: 1e15, otherwise: 10_000 });
	const scaling = given && readScaling(given, context, parameters !== null);
	if (scaling?.kind === 'yarn' && theta === 1) throw config.refuse('rope_theta', 'a number above 1 for yarn');
	return { theta, pairs: 'halves', ...ropeFrequencies(headDim, theta, scaling) };
}

/** @param mayBeUnnamed whether no kind means none: `rope_parameters` may hold θ alone */
function readScaling(given: Fields, context: number, mayBeUnnamed: boolean): RopeScaling | null {
	const name = given.has('rope_type') || !given.has('type') ? 'rope_type' : 'type';
	const kind = mayBeUnnamed ? given.text(name, { otherwise: 'default' }) : given.text(name);
	const before = () => given.integer('original_max_position_embeddings', { most: limits.context });
	const factor = () => given.number('factor', { most: 1e6 });
	switch (kind) {
		case 'default':
			// Parameters for each kind of layer have no kind of their own: no model of the family has them.
			for (const each of given.names) if (typeof given.value(each) === 'object') throw given.refuse(each, 'a number or a name');
			return null;
		case 'linear':
			return { kind, factor: factor() };
		case 'llama3': {
			const low = given.number('low_freq_factor', { most: 1e6 });
			const high = given.number('high_freq_factor', { most: 1e6 });
			if (high <= low) throw given.refuse('high_freq_factor', `more than low_freq_factor, ${low}`);
			return { kind, factor: factor(), low, high, context: before() };
		}
		case 'yarn':
			return readYarn(given, given.has('original_max_position_embeddings') ? before() : context, context);
		default:
			throw given.refuse(name, 'one of default, linear, llama3, yarn');
	}
}

function readYarn(given: Fields, before: number, context: number): RopeScaling {
	// Without a factor, it is how much longer the context became (as transformers reads it).
	const factor = given.number('factor', { most: 1e6, otherwise: context / before });
	const weight = given.number('mscale', { least: 0, most: 1e6, otherwise: 0 });
	const everywhere = given.number('mscale_all_dim', { least: 0, most: 1e6, otherwise: 0 });
	const usual = weight && everywhere ? yarnMagnitude(factor, weight) / yarnMagnitude(factor, everywhere) : yarnMagnitude(factor);
	// 0 turns stand for the usual number, again as transformers reads it.
	const fast = given.number('beta_fast', { least: 0, most: 1e6, otherwise: 0 }) || 32;
	const slow = given.number('beta_slow', { least: 0, most: 1e6, otherwise: 0 }) || 1;
	if (slow >= fast) throw given.refuse('beta_fast', `more than beta_slow, ${slow}`);
	const magnitude = given.number('attention_factor', { most: 1e6, otherwise: usual });
	return { kind: 'yarn', factor, context: before, fast, slow, whole: given.boolean('truncate', true), magnitude };
}
