import { ArgumentError } from '../errors.js';

/** Where training is. */
export interface Position {
	/** Steps taken before this one, from 0. */
	readonly step: number;
	/** Steps in all. */
	readonly steps: number;
	/** From 0. */
	readonly epoch: number;
}

/** What the learning rate is multiplied by at a step. */
export type Schedule = (position: Position) => number;

/** By name: `constant` 1; `cosine` from 1 to 0 over all steps; `linear` likewise, straight; `type1` halves with every epoch. */
export const schedules = {
	constant: () => 1,
	cosine: ({ step, steps }) => 0.5 * (1 + Math.cos((Math.PI * step) / steps)),
	linear: ({ step, steps }) => 1 - step / steps,
	type1: ({ epoch }) => 0.5 ** epoch,
} satisfies Record<string, Schedule>;

export type ScheduleName = keyof typeof schedules;

/**
 * The schedule of a name, rising linearly to it over the first `warmup` steps.
 * @param warmup steps @default 0
 */
export function schedule(name: ScheduleName | Schedule, warmup = 0): Schedule {
	if (!Number.isInteger(warmup) || warmup < 0) throw new ArgumentError(`schedule: warmup is ${warmup}, expected an integer from 0`);
	if (typeof name === 'string' && !Object.hasOwn(schedules, name)) {
		throw new ArgumentError(`schedule: found \`${name}\`, expected one of ${Object.keys(schedules).join(', ')}`);
	}
	const shape: Schedule = typeof name === 'string' ? schedules[name] : name;
	return (position) => shape(position) * (position.step < warmup ? (position.step + 1) / warmup : 1);
}
