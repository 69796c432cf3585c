#!/usr/bin/env node
import { launch } from './launch.js';

await launch(new URL('../broker/main.ts', import.meta.url));
