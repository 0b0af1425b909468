/**
 * The commands, in the order of the help page. A file of these defines one, and exports its function and types: all that it exports is
 * public.
 */
export * from './train.ts'
export * from './eval.ts'
export * from './generate.ts'
export * from './chat.ts'
export * from './quantize.ts'
export * from './merge.ts'
export * from './export.ts'
export * from './data-inspect.ts'
export * from './data-check.ts'
export * from './data-preview.ts'
export * from './data-split.ts'
export * from './data-convert.ts'
export * from './replay.ts'
export * from './profile.ts'
export * from './selftest.ts'
export * from './report.ts'
export * from './runs.ts'
export * from './compare.ts'
export * from './models.ts'
export * from './models-rm.ts'
