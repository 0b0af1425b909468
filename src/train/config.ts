import type { TrainConfig } from '../config/index.ts'

/* What training takes of a configuration, part by part. */

/** What decides an update of the weights. */
export type OptimizerConfig = Pick<
  TrainConfig,
  'optim' | 'optimArgs' | 'adamBeta1' | 'adamBeta2' | 'adamEpsilon' | 'weightDecay' | 'loraplusLrRatio'
> &
  Partial<Pick<TrainConfig, 'method'>>

/** What decides the learning rate. */
export type ScheduleConfig = Pick<
  TrainConfig,
  'learningRate' | 'lrSchedulerType' | 'lrSchedulerKwargs' | 'warmupSteps' | 'warmupRatio'
>

/** What a run is watched by. */
export type WatchConfig = Pick<
  TrainConfig,
  | 'onSpike'
  | 'earlyStoppingPatience'
  | 'earlyStoppingThreshold'
  | 'metricForBestModel'
  | 'greaterIsBetter'
  | 'loadBestModelAtEnd'
  | 'learningRate'
  | 'maxGradNorm'
  | 'loraDropout'
  | 'method'
  | 'train'
  | 'outputDir'
>

/** What decides the batches of a run. */
export type OrderConfig = Pick<
  TrainConfig,
  'seed' | 'perDeviceTrainBatchSize' | 'gradientAccumulationSteps' | 'packing' | 'padToMultipleOf' | 'groupByLength'
>

/** What decides the steps of a run, too. */
export type LengthConfig = OrderConfig & Pick<TrainConfig, 'maxSteps' | 'numTrainEpochs'>

/** When something else is done than steps, and with what. */
type ScheduledConfig = Pick<
  TrainConfig,
  | 'evalStrategy'
  | 'evalSteps'
  | 'evalOnStart'
  | 'perDeviceEvalBatchSize'
  | 'loggingSteps'
  | 'saveStrategy'
  | 'saveSteps'
>

/** What training depends on of the configuration. */
export type TrainingConfig = LengthConfig &
  OptimizerConfig &
  ScheduleConfig &
  WatchConfig &
  ScheduledConfig &
  Pick<TrainConfig, 'neftuneNoiseAlpha'>

/** What the workload of a run depends on. */
export type WorkloadConfig = LengthConfig &
  OptimizerConfig &
  Pick<TrainConfig, 'perDeviceEvalBatchSize' | 'loadBestModelAtEnd'>
