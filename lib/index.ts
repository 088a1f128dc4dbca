export { isRecording, noGrad } from './autograd.js';
export {
	type Entries,
	full,
	type H2oOptions,
	h2o,
	type Policy,
	type TovaOptions,
	tova,
	type WindowOptions,
	window,
} from './cache/index.js';
export { type DeviceInfo, type DeviceName, type DType, devices, type MemoryUse, memory, setThreads, synchronize, trim } from './device.js';
export { ArgumentError, DeviceError, DisposedError, FormatError, OutOfMemoryError, ShapeError } from './errors.js';
export {
	type BatchPiece,
	type GeneratedText,
	type GenerateOptions,
	type Generation,
	type Piece,
	type Prompt,
	type Reason,
	type SamplerOptions,
	toStream,
} from './generate/index.js';
export { type CsvOptions, readTable, type Table } from './io/csv.js';
export { aminoAcids, type FastaOptions, type FastaPiece, type FastaRecord, readFasta, readFastaPieces } from './io/fasta.js';
export {
	Aaren,
	type AarenOptions,
	Block,
	type BlockOptions,
	CausalAttention,
	type CausalAttentionOptions,
	CrossAttention,
	type CrossAttentionOptions,
	type ForwardOptions,
	LayerNorm,
	type LayerNormOptions,
	type LayerOptions,
	Linear,
	type LinearOptions,
	Mixer,
	type MixerName,
	type MixerOptions,
	Module,
	PerformerAttention,
	type PerformerAttentionOptions,
	type Recurrent,
	Stack,
	State,
	type Whole,
} from './layers/index.js';
export { ForecastStream } from './models/forecast_stream.js';
export { Forecaster, type ForecasterConfig } from './models/forecaster.js';
export { type ForecastingOptions, type ForecastingProgress, type Trained, trainForecaster } from './models/forecasting.js';
export { Llama, type LlamaOptions } from './models/llama.js';
export { Performer, type PerformerBatch, type PerformerForwardOptions } from './models/performer.js';
export type { PerformerConfig } from './models/performer_config.js';
export type { PerformerizeOptions } from './models/performerize.js';
export type { PerformerDecoderConfig } from './models/performerize_config.js';
export { PerformerDecoder } from './models/performerize_decoder.js';
export type { PerformerStream } from './models/performerize_stream.js';
export { type AttentionMap, AttentionTally, attentionOf, type HeadFigures } from './models/protein_attention.js';
export { type AminoAcidMatrix, parseBlosum, readBlosum } from './models/protein_blosum.js';
export { correlateMatrices, type MatrixCorrelation, spearman } from './models/protein_correlation.js';
export {
	accessionOf,
	type ProteinMode,
	type ProteinPart,
	ProteinSet,
	type ProteinWindowOptions,
	ProteinWindows,
	partOf,
	readProteins,
} from './models/protein_data.js';
export { loadProtein, type ProteinAbout, type ProteinTraining, proteinModel, saveProtein, trainProtein } from './models/protein_model.js';
export {
	type ProteinScoreOptions,
	type ScoredProtein,
	type StreamedProtein,
	scoreProtein,
	scoreWindows,
	streamProteins,
} from './models/protein_score.js';
export { type ProteinScore, ProteinTally } from './models/protein_tally.js';
export { encodeProtein, proteinTokens } from './models/protein_tokens.js';
export { type Score, score } from './models/score.js';
export type { Scored } from './models/score_tokens.js';
export { partsOf, type Scale, Series, type Split, scaleOf, Windows } from './models/series.js';
export { Session } from './models/session.js';
export type { CallOptions, SessionOptions } from './models/session_options.js';
export { generateTogether } from './models/together.js';
export { type TokenBatch, type Tokens, TokenTexts } from './models/tokens.js';
export * as ops from './ops/index.js';
export { Random } from './random.js';
export { persist, type Resource, scope, Tensor, type TensorOptions, tensor } from './tensor.js';
export { type ChatMessage, type ChatOptions, renderChat } from './text/chat.js';
export { type OpenTokenizerOptions, openTokenizer } from './text/open_tokenizer.js';
export type { Tokenizer } from './text/tokenizer.js';
export { Utf8Stream } from './text/utf8.js';
export { AdamW, type AdamWOptions } from './train/adamw.js';
export type { Checkpoint, Keeper, Kept } from './train/checkpoint.js';
export { evaluate } from './train/evaluate.js';
export { type Batch, type Dataset, type FitOptions, fit, type Progress, type Trainable } from './train/fit.js';
export { loadModel, registerModel, type Saveable, saveModel } from './train/save.js';
export { type Schedule, type ScheduleName, schedules } from './train/schedule.js';
