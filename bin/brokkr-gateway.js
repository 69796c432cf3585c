#!/usr/bin/env node
import { launch } from './launch.js';

await launch(new URL('../gateway/main', import.meta.url));
