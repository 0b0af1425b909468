import { expect, test } from 'vitest'
import { LowrankError } from './errors.ts'
import { checkThreads, isOutOfMemory, memoryError, threadsLeft } from './limits.ts'

test.each([
  'Array buffer allocation failed',
  'std::bad_alloc',
  'Failed to allocate memory for requested buffer of size 402653184',
  'libonnxruntime.so.1: failed to map segment from shared object',
  'env.cc:251 PosixThread() pthread_create failed, error code: 12 error msg: Cannot allocate memory',
  'ENOMEM: not enough memory, read',
])('%s', (message) => {
  expect(isOutOfMemory(new Error(message))).toBe(true)
})

test('other errors are not about memory', () => {
  expect(isOutOfMemory(new Error('shape mismatch'))).toBe(false)
  expect(isOutOfMemory(new LowrankError('model', 'bad_alloc.json is no model'))).toBe(false)
})

test('a failed thread is reported without the place in the source of the runtime', () => {
  const cause = new Error('/src/posix/env.cc:251 PosixThread() pthread_create failed, error code: 12')
  const error = memoryError('while block.forward was made ready', cause, 'Use less.')
  expect(error.message).toMatch(
    /^out of memory while block.forward was made ready: pthread_create failed, error code: 12/,
  )
  expect([error.code, error.hint]).toEqual(['memory', expect.stringContaining('Use less.')])
})

test('threads that may be started are', () => {
  expect(threadsLeft()).toBeGreaterThan(0)
  expect(() => checkThreads('nothing', 0)).not.toThrow()
})
