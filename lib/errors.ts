/**
 * What oplus throws. Every message is one sentence: where, what was found, what was expected. Each class has a `code`, so
 * that callers need not compare classes across package copies.
 */

/** An argument is of the wrong kind or out of range. A `TypeError`. */
export class ArgumentError extends TypeError {
	override readonly name = 'TypeError';
	readonly code = 'ERR_ARGUMENT';
}

/** A tensor's shape does not fit the operation. */
export class ShapeError extends RangeError {
	override readonly name = 'ShapeError';
	readonly code = 'ERR_SHAPE';
}

/** A tensor, state or model was used after `dispose()`. */
export class DisposedError extends Error {
	override readonly name = 'DisposedError';
	readonly code = 'ERR_DISPOSED';
}

/** A device is not there, or work on it failed. */
export class DeviceError extends Error {
	override readonly name = 'DeviceError';
	readonly code: 'ERR_DEVICE' | 'ERR_OUT_OF_MEMORY';

	constructor(message: string, options?: ErrorOptions & { code?: 'ERR_DEVICE' | 'ERR_OUT_OF_MEMORY' }) {
		super(message, options);
		this.code = options?.code ?? 'ERR_DEVICE';
	}
}

/** Memory could not be had. */
export class OutOfMemoryError extends DeviceError {
	constructor(message: string, options?: ErrorOptions) {
		super(message, { ...options, code: 'ERR_OUT_OF_MEMORY' });
	}
}

/** A file is not what it should be. `path` and, where there is one, byte `offset` or `line` and `column` say where. */
export class FormatError extends Error {
	override readonly name = 'FormatError';
	readonly code = 'ERR_FORMAT';
	readonly path: string;
	readonly offset: number | undefined;
	readonly line: number | undefined;
	readonly column: number | undefined;

	constructor(path: string, message: string, at: ErrorOptions & { offset?: number; line?: number; column?: number } = {}) {
		const place = [
			path,
			at.offset === undefined ? '' : `byte ${at.offset}`,
			at.line === undefined ? '' : `line ${at.line}`,
			at.column === undefined ? '' : `column ${at.column}`,
		];
		super(`${place.filter(Boolean).join(', ')}: ${message}`, at);
		this.path = path;
		this.offset = at.offset;
		this.line = at.line;
		this.column = at.column;
	}
}

/** The classes that native code throws, by code. */
export const nativeErrors: Record<string, new (message: string) => Error> = {
	ERR_ARGUMENT: ArgumentError,
	ERR_SHAPE: ShapeError,
	ERR_DISPOSED: DisposedError,
	ERR_DEVICE: DeviceError,
	ERR_OUT_OF_MEMORY: OutOfMemoryError,
};
