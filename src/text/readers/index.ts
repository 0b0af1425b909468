export { type Place, placeText, type RecordEntry } from './reader.ts'
export { type Reader, readers, type ReadOptions, readRecords } from './records.ts'
export { type DatasetName, type DataSource, findSources, type FindOptions } from './sources.ts'
