/** A tensor that is trained, f32, with the sum of its gradients since the last step. */
export interface Trainable {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array
  readonly gradient: Float32Array
}
