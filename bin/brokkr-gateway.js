#!/usr/bin/env node
import { launch } from './launch.js';

await launch(new URL('../gateway/main.ts', import.meta.url));
