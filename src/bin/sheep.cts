#!/usr/bin/env node
// The thread pool takes its size before the first module of the program runs: hence this small door.
process.env.UV_THREADPOOL_SIZE ??= '8'
void import('./sheep-main.js')
