import { quantizeFourBit } from './fourbit.ts'
import { quantizeInt8 } from './int8.ts'
import { storageBytes } from './formats.ts'
import { emptySplit } from './gguf/split.ts'
import { kindOf, type Storage, type StoredWeight } from './stored.ts'
import { internalError } from '../util/errors.ts'
import { elements } from '../util/shape.ts'

/** A weight of zeros, to see how long what is done with such weights takes. */
export function zeroWeight(storage: Storage, shape: readonly number[]): StoredWeight {
  const [rows = 1, columns = 1] = shape
  if (typeof storage === 'string') {
    const data = storage === 'F32' ? new Float32Array(elements(shape)) : new Uint16Array(elements(shape))
    return { storage, shape, data } as StoredWeight
  }
  switch (storage.kind) {
    case 'int8':
      return { storage, shape, ...quantizeInt8(new Float32Array(elements(shape)), rows, columns, 'zeros') }
    case '4bit':
      return { storage, shape, packed: quantizeFourBit(new Float32Array(elements(shape)), storage, 'zeros') }
    case 'blocks':
      return { storage, shape, bytes: new Uint8Array(storageBytes(storage, shape)) }
    case 'split':
      return { storage, shape, blocks: emptySplit(storage.type, rows, columns) }
    default:
      throw internalError(`no zeros in ${kindOf(storage)}`)
  }
}
