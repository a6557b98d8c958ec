"""Parsing names of models, in the spellings that people and tools use."""

from collections.abc import Iterator
from itertools import combinations

import pytest

from llm_localrun.names.parse import parse_name, path_parts, short_names
from llm_localrun.names.quantizations import quantization_in
from llm_localrun.names.roles import projected_words

# A name; its family, base, size and quantization (- if it has none).
NAMES = """
# Files, as publishers of quantizations name them.
Qwen1.5-7B-Chat-Q4_K_M                         qwen         qwen1.5               7b     Q4_K_M
Qwen2-1.5B-Instruct.Q8_0                       qwen         qwen2                 1.5b   Q8_0
Qwen2.5-7B-Instruct-Q6_K_L                     qwen         qwen2.5               7b     Q6_K_L
Qwen2.5-7B-Instruct-1M-Q4_K_M                  qwen         qwen2.5               7b     Q4_K_M
Qwen2.5-Coder-32B-Instruct-IQ4_XS              qwen         qwen2.5-coder         32b    IQ4_XS
Qwen2.5-Math-7B-Instruct-Q5_K_M                qwen         qwen2.5-math          7b     Q5_K_M
Qwen2.5-VL-7B-Instruct-Q8_0                    qwen         qwen2.5-vl            7b     Q8_0
Qwen2.5-Omni-3B-Q4_K_M                         qwen         qwen2.5-omni          3b     Q4_K_M
Qwen3-8B-Q4_K_M                                qwen         qwen3                 8b     Q4_K_M
Qwen_Qwen3-8B-Q4_K_M                           qwen         qwen3                 8b     Q4_K_M
Qwen3-8B.i1-Q4_K_M                             qwen         qwen3                 8b     Q4_K_M
Qwen3-0.6B-UD-Q4_K_XL                          qwen         qwen3                 0.6b   UD-Q4_K_XL
Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL         qwen         qwen3                 30b    UD-Q4_K_XL
Qwen3-4B-Thinking-2507-Q4_K_M                  qwen         qwen3                 4b     Q4_K_M
Qwen3-235B-A22B-Q4_K_M-00001-of-00003          qwen         qwen3                 235b   Q4_K_M
Qwen3-Next-80B-A3B-Instruct-UD-Q4_K_XL         qwen         qwen3-next            80b    UD-Q4_K_XL
Qwen3-Coder-30B-A3B-Instruct-1M-UD-Q4_K_XL     qwen         qwen3-coder           30b    UD-Q4_K_XL
Qwen3-Coder-Next-Q4_K_M                        qwen         qwen3-coder-next      -      Q4_K_M
Qwen3VL-8B-Instruct-Q4_K_M                     qwen         qwen3-vl              8b     Q4_K_M
Qwen3.5-35B-A3B-UD-Q4_K_XL                     qwen         qwen3.5               35b    UD-Q4_K_XL
Qwen3.5-9B-Q4_K_M-imatrix                      qwen         qwen3.5               9b     Q4_K_M
Qwen3.6-27B-UD-IQ2_M                           qwen         qwen3.6               27b    UD-IQ2_M
QwQ-32B-Q4_K_M                                 qwq          qwq                   32b    Q4_K_M
codeqwen-1_5-7b-chat-q4_k_m                    codeqwen     codeqwen1.5           7b     Q4_K_M
llama-2-7b-chat.Q4_K_M                         llama        llama2                7b     Q4_K_M
Meta-Llama-3-8B-Instruct.Q4_0                  llama        llama3                8b     Q4_0
Meta-Llama-3.1-8B-Instruct-Q4_K_M              llama        llama3.1              8b     Q4_K_M
Llama-3.2-1B-Instruct-f16                      llama        llama3.2              1b     F16
Llama-3.2-11B-Vision-Instruct.Q4_K_M           llama        llama3.2-vision       11b    Q4_K_M
Llama-3.3-70B-Instruct-IQ2_XS                  llama        llama3.3              70b    IQ2_XS
Llama-4-Scout-17B-16E-Instruct-UD-Q2_K_XL      llama        llama4-scout          17b    UD-Q2_K_XL
Llama-4-Maverick-17B-128E-Instruct-UD-IQ1_S    llama        llama4-maverick       17b    UD-IQ1_S
Llama-Guard-3-8B.Q8_0                          llama        llama-guard3          8b     Q8_0
codellama-7b-instruct.Q4_K_M                   codellama    codellama             7b     Q4_K_M
tinyllama-1.1b-chat-v1.0.Q4_K_M                tinyllama    tinyllama             1.1b   Q4_K_M
gemma-2-9b-it-Q4_K_M                           gemma        gemma2                9b     Q4_K_M
google_gemma-3-4b-it-Q4_K_M                    gemma        gemma3                4b     Q4_K_M
gemma-3-4b-it-qat-q4_0                         gemma        gemma3                4b     Q4_0
gemma-3-270m-it-Q8_0                           gemma        gemma3                270m   Q8_0
gemma-3n-E4B-it-Q4_K_M                         gemma        gemma3n               e4b    Q4_K_M
gemma-4-26B-A4B-it-UD-Q4_K_M                   gemma        gemma4                26b    UD-Q4_K_M
medgemma-4b-it-Q4_K_M                          medgemma     medgemma              4b     Q4_K_M
codegemma-7b-it-Q4_K_M                         codegemma    codegemma             7b     Q4_K_M
mistral-7b-instruct-v0.2.Q4_K_M                mistral      mistral               7b     Q4_K_M
Mistral-Nemo-Instruct-2407-Q4_K_M              mistral      mistral-nemo          -      Q4_K_M
Mistral-Small-24B-Instruct-2501-Q4_K_M         mistral      mistral-small         24b    Q4_K_M
mistralai_Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M  mistral  mistral-small3.2   24b    Q4_K_M
Mistral-Large-Instruct-2411-IQ3_XXS            mistral      mistral-large         -      IQ3_XXS
mixtral-8x7b-instruct-v0.1.Q4_K_M              mixtral      mixtral               8x7b   Q4_K_M
Mixtral-8x22B-v0.1.IQ3_XS                      mixtral      mixtral               8x22b  IQ3_XS
Ministral-8B-Instruct-2410-Q4_K_M              ministral    ministral             8b     Q4_K_M
Ministral-3-3B-Instruct-2512-Q4_K_M            ministral    ministral3            3b     Q4_K_M
mistralai_Magistral-Small-2506-Q4_K_M          magistral    magistral-small       -      Q4_K_M
Devstral-Small-2507-Q4_K_M                     devstral     devstral-small        -      Q4_K_M
Devstral-Small-2-24B-Instruct-2512-Q4_K_M      devstral     devstral-small2       24b    Q4_K_M
Codestral-22B-v0.1-Q4_K_M                      codestral    codestral             22b    Q4_K_M
mathstral-7B-v0.1-Q4_K_M                       mathstral    mathstral             7b     Q4_K_M
mistral-community_pixtral-12b-Q4_K_M           pixtral      pixtral               12b    Q4_K_M
phi-2.Q4_K_M                                   phi          phi2                  -      Q4_K_M
Phi-3-mini-4k-instruct-q4                      phi          phi3-mini             -      -
Phi-3-medium-128k-instruct-Q4_K_M              phi          phi3-medium           -      Q4_K_M
Phi-3.5-mini-instruct-Q4_K_M                   phi          phi3.5-mini           -      Q4_K_M
Phi-3.5-MoE-instruct-Q4_K_M                    phi          phi3.5-moe            -      Q4_K_M
phi-4-Q4_K_M                                   phi          phi4                  -      Q4_K_M
microsoft_Phi-4-mini-instruct-Q4_K_M           phi          phi4-mini             -      Q4_K_M
Phi-4-reasoning-plus-UD-Q4_K_XL                phi          phi4-reasoning-plus   -      UD-Q4_K_XL
DeepSeek-R1-Distill-Qwen-7B-Q4_K_M             deepseek     deepseek-r1           7b     Q4_K_M
DeepSeek-R1-Distill-Llama-8B-UD-Q4_K_XL        deepseek     deepseek-r1           8b     UD-Q4_K_XL
deepseek-ai_DeepSeek-R1-0528-Qwen3-8B-Q4_K_M   deepseek     deepseek-r1           8b     Q4_K_M
DeepSeek-R1-0528-UD-IQ1_S-00001-of-00004       deepseek     deepseek-r1           -      UD-IQ1_S
DeepSeek-V3-0324-UD-Q2_K_XL                    deepseek     deepseek-v3           -      UD-Q2_K_XL
DeepSeek-V3.1-Terminus-UD-TQ1_0                deepseek     deepseek-v3.1-terminus -     UD-TQ1_0
DeepSeek-Coder-V2-Lite-Instruct-Q4_K_M         deepseek     deepseek-coder-v2-lite -     Q4_K_M
deepseek-coder-6.7b-instruct.Q4_K_M            deepseek     deepseek-coder        6.7b   Q4_K_M
deepseek-llm-7b-chat.Q4_K_M                    deepseek     deepseek-llm          7b     Q4_K_M
gpt-oss-20b-mxfp4                              gpt-oss      gpt-oss               20b    MXFP4
openai_gpt-oss-20b-MXFP4                       gpt-oss      gpt-oss               20b    MXFP4
gpt-oss-120b-UD-Q8_K_XL-00001-of-00002         gpt-oss      gpt-oss               120b   UD-Q8_K_XL
gpt-oss-safeguard-20b-Q4_K_M                   gpt-oss      gpt-oss-safeguard     20b    Q4_K_M
granite-3.3-8b-instruct-Q4_K_M                 granite      granite3.3            8b     Q4_K_M
ibm-granite_granite-4.0-h-tiny-Q4_K_M          granite      granite4.0-h-tiny     -      Q4_K_M
granite-4.0-h-350m-Q8_0                        granite      granite4.0-h          350m   Q8_0
granite-3.1-3b-a800m-instruct-Q4_K_M           granite      granite3.1            3b     Q4_K_M
SmolLM2-135M-Instruct.Q4_1                     smollm       smollm2               135m   Q4_1
HuggingFaceTB_SmolLM3-3B-Q4_K_M                smollm       smollm3               3b     Q4_K_M
SmolLM3-3B-128K-UD-Q4_K_XL                     smollm       smollm3               3b     UD-Q4_K_XL
OLMo-2-1124-7B-Instruct-Q4_K_M                 olmo         olmo2                 7b     Q4_K_M
allenai_OLMo-2-0325-32B-Instruct-Q4_K_M        olmo         olmo2                 32b    Q4_K_M
Olmo-3-7B-Think-Q4_K_M                         olmo         olmo3                 7b     Q4_K_M
AMD-OLMo-1B-SFT-DPO.Q8_0                       olmo         olmo                  1b     Q8_0
Falcon3-7B-Instruct-Q4_K_M                     falcon       falcon3               7b     Q4_K_M
Falcon-H1-1.5B-Deep-Instruct-Q4_K_M            falcon       falcon-h1             1.5b   Q4_K_M
falcon-mamba-7b-instruct-Q4_K_M                falcon       falcon-mamba          7b     Q4_K_M
Yi-1.5-9B-Chat-Q4_K_M                          yi           yi1.5                 9b     Q4_K_M
01-ai_Yi-1.5-34B-Chat-16K-Q4_K_M               yi           yi1.5                 34b    Q4_K_M
c4ai-command-r-v01-Q4_K_M                      command-r    command-r-v01         -      Q4_K_M
c4ai-command-r-08-2024-Q4_K_M                  command-r    command-r             -      Q4_K_M
c4ai-command-r7b-12-2024-Q4_K_M                command-r    command-r7b           -      Q4_K_M
c4ai-command-a-03-2025-Q4_K_M                  command-a    command-a             -      Q4_K_M
aya-23-8B-Q4_K_M                               aya          aya23                 8b     Q4_K_M
aya-expanse-8b-Q4_K_M                          aya          aya-expanse           8b     Q4_K_M
THUDM_GLM-4-32B-0414-Q4_K_M                    glm          glm4                  32b    Q4_K_M
zai-org_GLM-4.5-Air-Q4_K_M                     glm          glm4.5-air            -      Q4_K_M
GLM-4.1V-9B-Thinking-Q4_K_M                    glm          glm4.1v               9b     Q4_K_M
GLM-4.7-Flash-UD-Q4_K_XL                       glm          glm4.7-flash          -      UD-Q4_K_XL
THUDM_GLM-Z1-9B-0414-Q4_K_M                    glm          glm-z1                9b     Q4_K_M
moonshotai_Kimi-K2-Instruct-0905-IQ1_M         kimi         kimi-k2               -      IQ1_M
Kimi-K2-Thinking-UD-TQ1_0                      kimi         kimi-k2-thinking      -      UD-TQ1_0
moonshotai_Kimi-VL-A3B-Thinking-2506-Q4_K_M    kimi         kimi-vl               -      Q4_K_M
MiniMax-M2-UD-IQ2_XXS                          minimax      minimax-m2            -      UD-IQ2_XXS
Hermes-2-Pro-Mistral-7B.Q5_K_M                 hermes       hermes2-pro           7b     Q5_K_M
Hermes-3-Llama-3.1-8B.Q4_K_M                   hermes       hermes3               8b     Q4_K_M
NousResearch_Hermes-4-14B-Q4_K_M               hermes       hermes4               14b    Q4_K_M
Nous-Hermes-2-Mixtral-8x7B-DPO.Q4_K_M          hermes       hermes2               8x7b   Q4_K_M
openhermes-2.5-mistral-7b.Q4_K_M               openhermes   openhermes2.5         7b     Q4_K_M
dolphin-2.9-llama3-8b-Q4_K_M                   dolphin      dolphin2.9            8b     Q4_K_M
Dolphin3.0-Llama3.1-8B-Q4_K_M                  dolphin      dolphin3.0            8b     Q4_K_M
cognitivecomputations_Dolphin-Mistral-24B-Venice-Edition-Q4_K_M  dolphin  dolphin  24b   Q4_K_M
dolphin-2.9.4-gemma2-2b-Q4_K_M                 dolphin      dolphin2.9.4          2b     Q4_K_M
dolphin-2.9.1-yi-1.5-34b-Q4_K_M                dolphin      dolphin2.9.1          34b    Q4_K_M
deepcogito_cogito-v1-preview-qwen-14B-Q4_K_M   cogito       cogito-v1-preview     14b    Q4_K_M
stablelm-2-1_6b-chat.Q4_K_M                    stablelm     stablelm2             1.6b   Q4_K_M
stablelm-zephyr-3b.Q4_K_M                      stablelm     stablelm-zephyr       3b     Q4_K_M
stable-code-3b.Q4_K_M                          stable-code  stable-code           3b     Q4_K_M
starcoder2-15b-instruct-v0.1-Q4_K_M            starcoder    starcoder2            15b    Q4_K_M
Llama-3.1-Nemotron-70B-Instruct-HF-Q4_K_M      nemotron     llama3.1-nemotron     70b    Q4_K_M
nvidia_Llama-3_3-Nemotron-Super-49B-v1_5-Q4_K_M nemotron    llama3.3-nemotron-super 49b  Q4_K_M
nvidia_NVIDIA-Nemotron-Nano-9B-v2-Q4_K_M       nemotron     nemotron-nano         9b     Q4_K_M
Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL             nemotron     nemotron3-nano        30b    UD-Q4_K_XL
Llama-3.1-Tulu-3-8B-Q4_K_M                     tulu         llama3.1-tulu3        8b     Q4_K_M
EXAONE-3.5-7.8B-Instruct-Q4_K_M                exaone       exaone3.5             7.8b   Q4_K_M
EXAONE-4.0-1.2B-Q4_K_M                         exaone       exaone4.0             1.2b   Q4_K_M
LiquidAI_LFM2-8B-A1B-Q4_K_M                    lfm          lfm2                  8b     Q4_K_M
LFM2.5-1.2B-Instruct-Q4_K_M                    lfm          lfm2.5                1.2b   Q4_K_M
LFM2-VL-1.6B-Q8_0                              lfm          lfm2-vl               1.6b   Q8_0
ai21labs_AI21-Jamba-1.5-Mini-Q4_K_M            jamba        jamba1.5-mini         -      Q4_K_M
ai21labs_AI21-Jamba-Reasoning-3B-Q4_K_M        jamba        jamba-reasoning       3b     Q4_K_M
mamba-2.8b-hf.Q4_K_M                           mamba        mamba                 2.8b   Q4_K_M
rwkv-6-world-7b-Q4_K_M                         rwkv         rwkv6-world           7b     Q4_K_M
RWKV7-Goose-World3-2.9B-HF-Q8_0                rwkv         rwkv7-goose-world3    2.9b   Q8_0
internlm2_5-7b-chat-q4_k_m                     internlm     internlm2.5           7b     Q4_K_M
ERNIE-4.5-21B-A3B-PT-Q4_K_M                    ernie        ernie4.5              21b    Q4_K_M
ByteDance-Seed_Seed-OSS-36B-Instruct-Q4_K_M    seed         seed-oss              36b    Q4_K_M
tencent_Hunyuan-A13B-Instruct-Q4_K_M           hunyuan      hunyuan               -      Q4_K_M
inclusionAI_Ling-mini-2.0-Q4_K_M               ling         ling-mini2.0          -      Q4_K_M
arcee-ai_AFM-4.5B-Q4_K_M                       afm          afm                   4.5b   Q4_K_M
solar-10.7b-instruct-v1.0.Q4_K_M               solar        solar                 10.7b  Q4_K_M
zephyr-7b-beta.Q4_K_M                          zephyr       zephyr                7b     Q4_K_M
vicuna-13b-v1.5.Q4_K_M                         vicuna       vicuna                13b    Q4_K_M
neural-chat-7b-v3-3.Q4_K_M                     neural-chat  neural-chat           7b     Q4_K_M
h2o-danube3-4b-chat-Q4_K_M                     h2o          h2o-danube3           4b     Q4_K_M
open_llama_3b.Q4_K_M                           open-llama   open-llama            3b     Q4_K_M
Bonsai-8B-Q1_0                                 bonsai       bonsai                8b     Q1_0
jan-nano-128k-Q4_K_M                           jan          jan-nano              -      Q4_K_M
TheDrummer_Cydonia-24B-v4.1-Q4_K_M             cydonia      cydonia               24b    Q4_K_M
llava-v1.6-mistral-7b.Q4_K_M                   llava        llava-v1.6            7b     Q4_K_M
moondream2-text-model-f16                      moondream    moondream2-text-model -      F16
MiniCPM-V-2_6-Q4_K_M                           minicpm      minicpm-v-2.6         -      Q4_K_M
InternVL3-8B-Instruct-Q4_K_M                   internvl     internvl3             8b     Q4_K_M
SmolVLM2-500M-Video-Instruct-Q8_0              smolvlm      smolvlm2              500m   Q8_0
# Fine-tuned models.
Huihui-Qwen3-8B-abliterated-v2.i1-Q4_K_M       qwen         qwen3                 8b     Q4_K_M
gemma-3-27b-it-abliterated.q4_k_m              gemma        gemma3                27b    Q4_K_M
DeepSeek-R1-Distill-Qwen-14B-abliterated-v2-Q4_K_M deepseek deepseek-r1           14b    Q4_K_M
Qwen3.8-27B-Uncensored-HauhauCS-Aggressive-Q4_K_P qwen      qwen3.8               27b    Q4_K_P
p-e-w_gpt-oss-20b-heretic-MXFP4_MOE            gpt-oss      gpt-oss               20b    MXFP4_MOE
medpsy-4b-q4_k_m-imat                          medpsy       medpsy                4b     Q4_K_M
# The cache of older llama.cpp: OWNER_REPOSITORY_FILE.
ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-Q4_K_M                   gemma   gemma3        4b   Q4_K_M
ggml-org_gpt-oss-20b-GGUF_gpt-oss-20b-mxfp4                         gpt-oss gpt-oss       20b  MXFP4
unsloth_Qwen3.5-9B-GGUF_Qwen3.5-9B-BF16                             qwen    qwen3.5       9b   BF16
ggml-org_Qwen2.5-Coder-7B-Q8_0-GGUF_qwen2.5-coder-7b-q8_0           qwen    qwen2.5-coder 7b   Q8_0
microsoft_Phi-3-mini-4k-instruct-gguf_Phi-3-mini-4k-instruct-fp16   phi     phi3-mini     -    F16
# GPT4All.
mistral-7b-openorca.gguf2.Q4_0                 mistral      mistral               7b     Q4_0
nous-hermes-llama2-13b.Q4_0                    hermes       hermes                13b    Q4_0
orca-2-7b.Q4_0                                 orca         orca2                 7b     Q4_0
orca-mini-3b-gguf2-q4_0                        orca         orca-mini             3b     Q4_0
gpt4all-falcon-newbpe-q4_0                     gpt4all      gpt4all-falcon-newbpe -      Q4_0
mpt-7b-chat.gguf4.Q4_0                         mpt          mpt                   7b     Q4_0
replit-code-v1_5-3b-newbpe-q4_0                replit       replit-code-v1.5      3b     Q4_0
wizardlm-13b-v1.2.Q4_0                         wizardlm     wizardlm              13b    Q4_0
em_german_mistral_v01.Q4_0                     em           em-german             -      Q4_0
# Ollama.
qwen3:8b                                       qwen         qwen3                 8b     -
qwen3:latest                                   qwen         qwen3                 -      -
qwen3:30b-a3b                                  qwen         qwen3                 30b    -
qwen3:30b-a3b-thinking-2507-q4_K_M             qwen         qwen3                 30b    Q4_K_M
qwen3-coder:480b-cloud                         qwen         qwen3-coder           480b   -
qwen2.5-coder:1.5b-base-q4_K_M                 qwen         qwen2.5-coder         1.5b   Q4_K_M
qwen2.5vl:7b                                   qwen         qwen2.5-vl            7b     -
qwen3-vl:8b-instruct                           qwen         qwen3-vl              8b     -
qwen:0.5b-chat-v1.5-q4_0                       qwen         qwen                  0.5b   Q4_0
qwq:32b-preview-q8_0                           qwq          qwq                   32b    Q8_0
llama2-uncensored:7b                           llama        llama2-uncensored     7b     -
llama3:8b-text-q8_0                            llama        llama3                8b     Q8_0
llama3.2:1b-instruct-fp16                      llama        llama3.2              1b     F16
llama3.2-vision:11b                            llama        llama3.2-vision       11b    -
llama3.3:70b-instruct-q4_K_M                   llama        llama3.3              70b    Q4_K_M
llama4:16x17b                                  llama        llama4                16x17b -
llama4:scout                                   llama        llama4                -      -
llama-guard3:1b                                llama        llama-guard3          1b     -
gemma3:27b-it-qat                              gemma        gemma3                27b    -
gemma3n:e4b                                    gemma        gemma3n               e4b    -
gemma4:31b-mlx                                 gemma        gemma4                31b    -
codegemma:2b-code                              codegemma    codegemma             2b     -
mistral:latest                                 mistral      mistral               -      -
mistral:7b-instruct-v0.3-q4_0                  mistral      mistral               7b     Q4_0
mistral-small3.2:24b                           mistral      mistral-small3.2      24b    -
mistral-nemo:12b                               mistral      mistral-nemo          12b    -
devstral-small-2:24b                           devstral     devstral-small2       24b    -
phi3:mini                                      phi          phi3                  -      -
phi3:14b-medium-4k-instruct-q5_K_M             phi          phi3                  14b    Q5_K_M
phi4-mini:3.8b                                 phi          phi4-mini             3.8b   -
deepseek-r1:7b-qwen-distill-q4_K_M             deepseek     deepseek-r1           7b     Q4_K_M
deepseek-r1:8b-0528-qwen3-q4_K_M               deepseek     deepseek-r1           8b     Q4_K_M
deepseek-v3.1:671b-cloud                       deepseek     deepseek-v3.1         671b   -
deepseek-coder-v2:16b-lite-instruct-q4_0       deepseek     deepseek-coder-v2     16b    Q4_0
gpt-oss:120b-cloud                             gpt-oss      gpt-oss               120b   -
granite3.1-moe:3b                              granite      granite3.1-moe        3b     -
granite4:tiny-h                                granite      granite4              -      -
olmo2:7b-1124-instruct-q4_K_M                  olmo         olmo2                 7b     Q4_K_M
command-r7b:7b-12-2024-q4_K_M                  command-r    command-r7b           7b     Q4_K_M
command-r-plus:104b                            command-r    command-r-plus        104b   -
kimi-k2:1t-cloud                               kimi         kimi-k2               1t     -
glm-4.6:cloud                                  glm          glm4.6                -      -
minimax-m2:cloud                               minimax      minimax-m2            -      -
hermes3:8b                                     hermes       hermes3               8b     -
dolphin-llama3:8b                              dolphin      dolphin               8b     -
dolphin-mixtral:8x7b                           dolphin      dolphin               8x7b   -
llava-phi3:3.8b                                llava        llava                 3.8b   -
llava-llama3:8b                                llava        llava                 8b     -
minicpm-v:8b                                   minicpm      minicpm-v             8b     -
moondream:1.8b                                 moondream    moondream             1.8b   -
r1-1776:70b                                    r1           r1-1776               70b    -
nemotron-3-nano:30b                            nemotron     nemotron3-nano        30b    -
smollm2-native:latest                          smollm       smollm2-native        -      -
mannix/llama3.1-8b-abliterated:q5_K_M          llama        llama3.1              8b     Q5_K_M
adrienbrault/nous-hermes2pro-llama3-8b:q4_K_M  hermes2pro   hermes2pro            8b     Q4_K_M
hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M  llama    llama3.2              3b     Q4_K_M
hf.co/mlabonne/gemma-3-27b-it-abliterated-GGUF:Q4_K_M gemma gemma3                27b    Q4_K_M
dengcao/Qwen3-Reranker-0.6B:Q8_0               qwen         qwen3-reranker        0.6b   Q8_0
# LM Studio.
qwen/qwen3-8b                                  qwen         qwen3                 8b     -
qwen/qwen3-8b@q8_0                             qwen         qwen3                 8b     Q8_0
qwen/qwen3-coder-30b                           qwen         qwen3-coder           30b    -
openai/gpt-oss-20b                             gpt-oss      gpt-oss               20b    -
google/gemma-4-26b-a4b                         gemma        gemma4                26b    -
google/gemma-3n-e4b                            gemma        gemma3n               e4b    -
meta-llama-3.1-8b-instruct@q4_k_m              llama        llama3.1              8b     Q4_K_M
meta/llama-3.3-70b                             llama        llama3.3              70b    -
qwen3-8b-mlx@4bit                              qwen         qwen3                 8b     4bit
qwen2-vl-7b-instruct                           qwen         qwen2-vl              7b     -
mistralai/devstral-small-2507                  devstral     devstral-small        -      -
mistralai/magistral-small-2509                 magistral    magistral-small       -      -
mistralai/mistral-small-3.2                    mistral      mistral-small3.2      -      -
microsoft/phi-4-mini-reasoning                 phi          phi4-mini-reasoning   -      -
deepseek/deepseek-r1-0528-qwen3-8b             deepseek     deepseek-r1           8b     -
ibm/granite-4-h-tiny                           granite      granite4-h-tiny       -      -
nvidia/nemotron-3-nano-4b                      nemotron     nemotron3-nano        4b     -
huihui-qwen3-4b-thinking-2507-abliterated      qwen         qwen3                 4b     -
openai-gpt-oss-20b-abliterated-uncensored-neo-imatrix gpt-oss gpt-oss             20b    -
# vLLM, SGLang and llama-server, by repositories, files or paths.
Qwen/Qwen3-8B                                  qwen         qwen3                 8b     -
Qwen/Qwen3-8B-FP8                              qwen         qwen3                 8b     FP8
Qwen/Qwen2.5-7B-Instruct-AWQ                   qwen         qwen2.5               7b     AWQ
Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4             qwen         qwen2.5               7b     GPTQ-INT4
Qwen/Qwen1.5-MoE-A2.7B-Chat                    qwen         qwen1.5-moe           -      -
meta-llama/Llama-3.1-8B-Instruct               llama        llama3.1              8b     -
RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16 llama   llama3.1              8b     W4A16
RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic llama       llama3.1              8b     FP8
RedHatAI/Llama-4-Scout-17B-16E-Instruct-quantized.w4a16 llama llama4-scout        17b    W4A16
nvidia/Qwen3.8-27B-NVFP4                       qwen         qwen3.8               27b    NVFP4
cpatonn/Qwen3-30B-A3B-Instruct-2507-AWQ-4bit   qwen         qwen3                 30b    AWQ-4bit
unsloth/Qwen3-14B-unsloth-bnb-4bit             qwen         qwen3                 14b    4bit
mistralai/Mistral-7B-Instruct-v0.3             mistral      mistral               7b     -
microsoft/Phi-3-mini-128k-instruct             phi          phi3-mini             -      -
tiiuae/falcon-7b-instruct                      falcon       falcon                7b     -
internlm/internlm2-chat-7b                     internlm     internlm2             7b     -
/root/models/Qwen3-8B/                         qwen         qwen3                 8b     -
gemma-3-4b-it-Q4_K_M.gguf                      gemma        gemma3                4b     Q4_K_M
Qwen3-235B-A22B-Q4_K_M-00001-of-00003.gguf     qwen         qwen3                 235b   Q4_K_M
ggml-org/gemma-3-4b-it-GGUF:Q4_K_M             gemma        gemma3                4b     Q4_K_M
ggml-org/Qwen3-Coder-30B-A3B-Instruct-Q8_0-GGUF qwen        qwen3-coder           30b    Q8_0
unsloth/Qwen3-8B-GGUF                          qwen         qwen3                 8b     -
# MLX.
mlx-community/Qwen3-8B-4bit                    qwen         qwen3                 8b     4bit
mlx-community/Qwen3-4B-Instruct-2507-4bit-DWQ-2510 qwen     qwen3                 4b     4bit-DWQ
mlx-community/qwen3-1.7b-4bit-dwq-053125       qwen         qwen3                 1.7b   4bit-DWQ
mlx-community/GLM-4.5-Air-3bit                 glm          glm4.5-air            -      3bit
mlx-community/Llama-3.2-3B-Instruct-8bit       llama        llama3.2              3b     8bit
mlx-community/gemma-3-27b-it-qat-6bit          gemma        gemma3                27b    6bit
mlx-community/gemma-3n-E4B-it-bf16             gemma        gemma3n               e4b    BF16
mlx-community/gpt-oss-20b-MXFP4-Q8             gpt-oss      gpt-oss               20b    MXFP4
mlx-community/Qwen3-Embedding-8B-mxfp8         qwen         qwen3-embedding       8b     MXFP8
mlx-community--granite-3.3-8b-instruct-4bit    granite      granite3.3            8b     4bit
lmstudio-community/Qwen3.5-9B-MLX-4bit         qwen         qwen3.5               9b     4bit
unsloth--Qwen3.6-27B-UD-MLX-4bit               qwen         qwen3.6               27b    4bit
Mixtral-8x7B-Instruct-v0.1-hf-4bit-mlx         mixtral      mixtral               8x7b   4bit
# Docker Model Runner, KoboldCpp, Lemonade, Jan.
ai/gemma3:4B-Q4_K_M                            gemma        gemma3                4b     Q4_K_M
ai/qwen3-coder:30B-A3B-UD-Q4_K_XL              qwen         qwen3-coder           30b    UD-Q4_K_XL
ai/deepseek-r1-distill-llama:8B-Q4_K_M         deepseek     deepseek-r1           8b     Q4_K_M
ai/smollm2                                     smollm       smollm2               -      -
docker.io/ai/embeddinggemma:300M-Q8_0          embeddinggemma embeddinggemma      300m   Q8_0
hf.co/bartowski/llama-3.2-1b-instruct-gguf     llama        llama3.2              1b     -
koboldcpp/gemma-4-E4B-it-UD-Q6_K_XL            gemma        gemma4                e4b    UD-Q6_K_XL
koboldcpp/mistral-7b-instruct-v0.2.Q4_K_M      mistral      mistral               7b     Q4_K_M
Qwen3-4B-GGUF                                  qwen         qwen3                 4b     -
Qwen-2.5-1.5B-Instruct-Hybrid                  qwen         qwen2.5               1.5b   -
gpt-oss-20b-mxfp4-GGUF                         gpt-oss      gpt-oss               20b    MXFP4
Devstral-Small-2507_gguf                       devstral     devstral-small        -      -
Jan-v1-4B-Q4_K_M                               jan          jan-v1                4b     Q4_K_M
cortexso/deepseek-r1                           deepseek     deepseek-r1           -      -
# Embedding models and rerankers.
nomic-embed-text-v1.5.Q8_0                     nomic        nomic-embed-text-v1.5 -      Q8_0
nomic-embed-text:latest                        nomic        nomic-embed-text      -      -
nomic-embed-text-v2-moe-q8_0                   nomic        nomic-embed-text-v2-moe -    Q8_0
text-embedding-nomic-embed-text-v1.5@q8_0      nomic        nomic-embed-text-v1.5 -      Q8_0
text-embedding-qwen3-embedding-0.6b            qwen         qwen3-embedding       0.6b   -
Qwen3-Embedding-0.6B-Q8_0                      qwen         qwen3-embedding       0.6b   Q8_0
embeddinggemma-300M-Q8_0                       embeddinggemma embeddinggemma      300m   Q8_0
mxbai-embed-large:335m                         mxbai        mxbai-embed-large     335m   -
text-embedding-mxbai-embed-large-v1            mxbai        mxbai-embed-large-v1  -      -
bge-m3:567m                                    bge          bge-m3                567m   -
BAAI/bge-large-en-v1.5                         bge          bge-large-en-v1.5     -      -
bge-base-en-v1.5-f16                           bge          bge-base-en-v1.5      -      F16
all-MiniLM-L6-v2.gguf2.f16                     all-minilm   all-minilm-l6-v2      -      F16
all-minilm:33m                                 all-minilm   all-minilm            33m    -
snowflake-arctic-embed2:568m                   snowflake    snowflake-arctic-embed2 568m -
text-embedding-snowflake-arctic-embed-l-v2.0   snowflake    snowflake-arctic-embed-l-v2.0 - -
jinaai/jina-embeddings-v3                      jina         jina-embeddings-v3    -      -
granite-embedding:278m                         granite      granite-embedding     278m   -
intfloat/multilingual-e5-large-instruct        multilingual-e5 multilingual-e5-large -    -
intfloat/e5-mistral-7b-instruct                e5           e5                    7b     -
Qwen3-Reranker-0.6B-Q8_0                       qwen         qwen3-reranker        0.6b   Q8_0
bge-reranker-v2-m3-Q8_0                        bge          bge-reranker-v2-m3    -      Q8_0
# Names that users give to their own models.
my model 7B                                    my           my-model              7b     -
model                                          model        model                 -      -
"""


def cases(table: str) -> Iterator[list[str]]:
    """The rows of a table whose first column may have spaces."""
    for line in table.strip().splitlines():
        if line and not line.startswith("#"):
            *name, family, base, size, quantization = line.split()
            yield [" ".join(name), family, base, size, quantization]


@pytest.mark.parametrize("case", list(cases(NAMES)), ids=lambda case: case[0])
def test_names(case: list[str]) -> None:
    name, *expected = case
    parsed = parse_name(name)
    quantization = quantization_in(name)
    found = [parsed.family, parsed.base, parsed.size or "-", quantization or "-"]
    assert found == expected


def test_table_is_large_and_has_each_name_once() -> None:
    names = [case[0] for case in cases(NAMES)]
    assert len(names) == len(set(names)) >= 300


# Models made for one use, and the use.
MADE_FOR = {
    "code": """
        Qwen2.5-Coder-7B-Instruct qwen3-coder:30b deepseek-coder-v2:16b codellama:13b
        codegemma-7b-it Codestral-22B-v0.1 granite-code:8b stable-code-3b
        starcoder2-15b-instruct-v0.1 codeqwen:7b-chat deepcoder:14b sqlcoder-7b-2
        replit-code-v1_5-3b nomic-embed-code
        """,
    "pictures": """
        Qwen2.5-VL-7B-Instruct qwen2.5vl:7b qwen3-vl:8b llama3.2-vision:11b llava:13b bakllava:7b
        llava-v1.6-mistral-7b Llama-3.2-11B-Vision-Instruct moondream2 minicpm-v:8b MiniCPM-V-2_6
        InternVL3-8B-Instruct SmolVLM2-2.2B-Instruct zai-org/GLM-4.5V granite-vision-3.3-2b
        deepseek-ocr:3b LFM2-VL-1.6B Kimi-VL-A3B-Thinking-2506
        """,
    "mathematics": "Qwen2.5-Math-7B-Instruct mathstral-7B-v0.1 wizard-math:7b deepseek-math-7b-rl",
    # Base models.
    "completion": """
        Qwen3-8B-Base-Q4_K_M qwen2.5-coder:1.5b-base deepseek-v3-base gemma-3-4b-pt-Q8_0
        llama3:8b-text-q8_0 codellama:7b-code codegemma:2b-code Mistral-Nemo-Base-2407
        Mistral-Small-3.1-24B-Base-2503.i1-IQ3_M meta-llama/Llama-3.2-3B Meta-Llama-3-8B.Q4_K_M
        Llama-2-7b-hf mistralai/Mistral-7B-v0.3 Mixtral-8x22B-v0.1 Qwen/Qwen2.5-7B SmolLM2-135M
        mlx-community/Qwen2.5-Coder-7B-4bit ggml-org/Qwen2.5-Coder-7B-Q8_0-GGUF:Q8_0 Yi-1.5-9B
        OLMo-2-1124-7B Qwen2-57B-A14B meta-llama/Llama-3.1-8B codellama/CodeLlama-7b-hf Qwen/Qwen-7B
        Qwen1.5-7B Qwen2.5-Math-7B CodeQwen1.5-7B SmolLM-135M 01-ai/Yi-34B
        """,
    "moderation": """
        llama-guard3:8b Llama-Guard-3-8B Qwen3Guard-Gen-8B granite3-guardian:8b shieldgemma:9b
        gpt-oss-safeguard-20b
        """,
    # General models of the same families, and words that only resemble a specialty. Rerankers have
    # a purpose of their own.
    "anything": """
        Qwen3-Reranker-0.6B-Q8_0 bge-reranker-v2-m3 jina-reranker-v1-tiny-en mxbai-rerank-large-v2
        qwen3:8b Qwen3-8B Qwen2.5-7B-Instruct llama3.2:3b llama-3.2-3b meta/llama-3.3-70b gemma3:4b
        google/gemma-3-12b qwen/qwen2.5-7b mistral:latest Mistral-7B-Instruct-v0.3 QwQ-32B
        DeepSeek-R1-Distill-Qwen-7B gpt-oss:20b devstral:24b phi4 Phi-4 ERNIE-4.5-0.3B-PT
        bge-base-en-v1.5 all-mpnet-base-v2 nomic-embed-text:latest Qwen2.5-7B-Instruct-AWQ
        Llama-3.3-70B-Instruct Hermes-3-Llama-3.1-8B gemma-2-9b SmolLM3-3B deepseek-v3:671b
        """,
}


@pytest.mark.parametrize(
    ("name", "made_for"),
    [(name, made_for) for made_for, names in MADE_FOR.items() for name in names.split()],
)
def test_what_a_model_was_made_for(name: str, made_for: str) -> None:
    assert parse_name(name).made_for == made_for


# Each line: the names of one model at Ollama, at LM Studio, in repositories and in files.
SAME = """
qwen3:8b qwen/qwen3-8b Qwen/Qwen3-8B unsloth/Qwen3-8B-GGUF Qwen3-8B-Q4_K_M Qwen_Qwen3-8B-Q8_0
qwen3:8b ai/qwen3:8B-Q4_K_M koboldcpp/Qwen3-8B-Q4_K_M Qwen3-8B.i1-IQ3_M Qwen/Qwen3-8B-FP8
qwen3:8b mlx-community/Qwen3-8B-4bit lmstudio-community/Qwen3-8B-MLX-8bit Qwen3-8B-UD-Q2_K_XL
llama3.2:3b meta-llama/Llama-3.2-3B-Instruct llama-3.2-3b-instruct@q4_k_m ai/llama3.2:3B-Q4_K_M
llama3.2:3b hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M llama3.2:3b-instruct-q8_0
llama3.1:8b Meta-Llama-3.1-8B-Instruct-Q4_K_M RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16
llama3.2-vision:11b Llama-3.2-11B-Vision-Instruct
llama-guard3:8b Llama-Guard-3-8B
llama3:8b-text-q8_0 meta-llama/Meta-Llama-3-8B
gemma3:4b google_gemma-3-4b-it-Q4_K_M google/gemma-3-4b
gemma3:4b ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-f16 mlx-community/gemma-3-4b-it-4bit
gemma3n:e4b gemma-3n-E4B-it google/gemma-3n-e4b
gemma3:4b-it-qat gemma-3-4b-it-qat-Q4_0
gemma4:26b google/gemma-4-26b-a4b gemma-4-26B-A4B-it
qwen3:30b-a3b-instruct-2507-q4_K_M Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL qwen/qwen3-30b-a3b-2507
qwen3:4b-thinking-2507-q8_0 Qwen3-4B-Thinking-2507 qwen/qwen3-4b-thinking-2507
qwen3-coder:30b Qwen3-Coder-30B-A3B-Instruct qwen/qwen3-coder-30b
qwen2.5-coder:7b Qwen2.5-Coder-7B-Instruct qwen/qwen2.5-coder-7b
qwen2.5-coder:7b-base Qwen/Qwen2.5-Coder-7B
qwen2.5vl:7b Qwen2.5-VL-7B-Instruct qwen/qwen2.5-vl-7b Qwen2.5VL-7B-Instruct
gpt-oss:20b openai/gpt-oss-20b openai_gpt-oss-20b-MXFP4 mlx-community/gpt-oss-20b-MXFP4-Q8
deepseek-r1:7b-qwen-distill-q4_K_M DeepSeek-R1-Distill-Qwen-7B-Q4_K_M
deepseek-r1:8b-0528-qwen3-q8_0 deepseek/deepseek-r1-0528-qwen3-8b
ai/deepseek-r1-distill-llama:8B-Q4_K_M DeepSeek-R1-Distill-Llama-8B
mistral:7b-instruct-v0.3-q4_0 Mistral-7B-Instruct-v0.3
mistral-small3.2:24b-instruct-2506-q8_0 Mistral-Small-3.2-24B-Instruct-2506
olmo2:7b-1124-instruct-q4_K_M OLMo-2-1124-7B-Instruct
granite4:tiny-h ibm/granite-4-h-tiny granite-4.0-h-tiny
smollm2:135m SmolLM2-135M-Instruct.Q4_1
nomic-embed-text:v1.5 text-embedding-nomic-embed-text-v1.5 nomic-embed-text-v1.5.Q8_0
qwen3-embedding:0.6b text-embedding-qwen3-embedding-0.6b Qwen3-Embedding-0.6B-Q8_0
"""


@pytest.mark.parametrize("line", SAME.strip().splitlines())
def test_all_names_of_a_model_have_the_same_words(line: str) -> None:
    first, *others = line.split()
    words = parse_name(first).words
    assert [name for name in others if parse_name(name).words != words] == []


def test_different_models_have_different_words() -> None:
    firsts = {line.split()[0] for line in SAME.strip().splitlines()}
    pairs = combinations(sorted(firsts), 2)
    assert [pair for pair in pairs if parse_name(pair[0]).words == parse_name(pair[1]).words] == []


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Llama-3.2-3B-Instruct", "Llama-3.2-3B"),
        ("llama3:8b", "llama3:8b-text"),
        ("Qwen3-8B", "Qwen3-8B-Base"),
        ("gemma-3-4b-it", "gemma-3-4b-pt"),
        ("Mistral-7B-Instruct-v0.3", "Mistral-7B-v0.3"),
        ("Qwen3-30B-A3B", "Qwen3-30B-A3B-Instruct-2507"),
        ("qwen/qwen3-4b", "qwen/qwen3-4b-2507"),
        ("Qwen3-4B-Instruct-2507", "Qwen3-4B-Thinking-2507"),
        ("phi-4-mini-instruct", "Phi-4-mini-reasoning"),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-Coder-7B-Instruct"),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct-1M"),
        ("qwen3:8b", "qwen3:4b"),
        ("qwen3:8b", "qwen3:latest"),
        ("Mistral-7B-Instruct-v0.2", "Mistral-7B-Instruct-v0.3"),
        ("gemma-3-4b-it", "gemma-3-4b-it-qat"),
        ("Phi-3-mini-4k-instruct", "Phi-3-mini-128k-instruct"),
        ("DeepSeek-R1", "DeepSeek-R1-0528"),
        ("DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1-0528-Qwen3-8B"),
        ("DeepSeek-R1-Distill-Qwen-7B", "Qwen-7B-Chat"),
        ("Hermes-3-Llama-3.1-8B", "Llama-3.1-8B-Instruct"),
        ("Qwen3-8B", "Huihui-Qwen3-8B-abliterated"),
        ("gpt-oss:120b", "gpt-oss:120b-cloud"),
        ("nomic-embed-text-v1", "nomic-embed-text-v1.5"),
        ("snowflake-arctic-embed-m", "snowflake-arctic-embed-l"),
    ],
)
def test_similar_names_of_different_models_have_different_words(name: str, other: str) -> None:
    assert parse_name(name).words != parse_name(other).words


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Qwen3-8B-Q4_K_M", "qwen3-8b qwen3 qwen"),
        ("qwen3:latest", "qwen3 qwen"),
        (
            "Qwen3-30B-A3B-Instruct-2507",
            "qwen3-30b-a3b-instruct-2507 qwen3-30b-a3b qwen3-30b qwen3 qwen",
        ),
        ("qwen2.5-coder:7b", "qwen2.5-coder-7b qwen2.5-coder qwen-coder qwen"),
        (
            "Llama-3.2-11B-Vision-Instruct",
            "llama3.2-11b-vision-instruct llama3.2-vision-11b llama3.2-vision llama-vision llama",
        ),
        (
            "Llama-4-Scout-17B-16E-Instruct",
            "llama4-scout-17b-16e-instruct llama4-scout-17b-16e llama4-scout-17b llama4-scout"
            " llama4 llama-scout llama",
        ),
        (
            "Mistral-Small-3.2-24B-Instruct-2506",
            "mistral-small3.2-24b-instruct-2506 mistral-small3.2-24b mistral-small3.2 mistral-small"
            " mistral",
        ),
        ("Phi-4-mini-instruct", "phi4-mini-instruct phi4-mini phi4 phi-mini phi"),
        ("phi3:mini", "phi3-mini phi3 phi"),
        ("granite-4.0-h-tiny", "granite4.0-h-tiny granite4.0 granite4 granite-h-tiny granite"),
        ("GLM-4.5-Air", "glm4.5-air glm4.5 glm-air glm"),
        # A distilled model goes by the name of the one that taught it.
        (
            "DeepSeek-R1-Distill-Qwen-7B",
            "deepseek-r1-distill-qwen-7b deepseek-r1-distill-qwen deepseek-r1-7b deepseek-r1"
            " deepseek",
        ),
        (
            "DeepSeek-R1-0528-Qwen3-8B",
            "deepseek-r1-0528-qwen3-8b deepseek-r1-8b deepseek-r1 deepseek",
        ),
        (
            "DeepSeek-Coder-V2-Lite-Instruct",
            "deepseek-coder-v2-lite-instruct deepseek-coder-v2-lite deepseek-coder deepseek",
        ),
        # A tuned one by what its makers call it, not by what they made it from.
        (
            "Hermes-3-Llama-3.1-8B",
            "hermes3-llama3.1-8b hermes3-llama3.1 hermes3-8b hermes3 hermes",
        ),
        ("dolphin-llama3:8b", "dolphin-llama3-8b dolphin-llama3 dolphin-8b dolphin"),
        (
            "Llama-3.1-Nemotron-70B-Instruct-HF",
            "llama3.1-nemotron-70b-instruct llama3.1-nemotron-70b llama3.1-nemotron llama-nemotron"
            " nemotron",
        ),
        ("gpt-oss:20b", "gpt-oss-20b gpt-oss"),
        ("c4ai-command-r7b-12-2024", "command-r7b-12-2024 command-r7b command-r"),
        ("nomic-embed-text-v1.5", "nomic-embed-text-v1.5 nomic-embed-text nomic"),
        ("all-MiniLM-L6-v2", "all-minilm-l6-v2 all-minilm-l6 all-minilm"),
    ],
)
def test_names_that_people_use(name: str, names: str) -> None:
    assert list(parse_name(name).names) == names.split()


@pytest.mark.parametrize(
    ("generation", "names"),
    [
        ("qwen3", "Qwen3-8B Qwen3-Next-80B-A3B-Instruct"),
        (
            "llama4",
            "llama4:scout Llama-4-Scout-17B-16E-Instruct Llama-4-Maverick-17B-128E-Instruct",
        ),
        ("phi3", "Phi-3-mini-4k-instruct Phi-3-medium-128k-instruct"),
        ("phi3.5", "Phi-3.5-MoE-instruct"),
        ("granite4", "granite-4.0-h-tiny granite-4.0-h-small granite-4.0-micro granite4:tiny-h"),
        ("granite3.1", "granite3.1-dense:8b granite3.1-moe:3b"),
        ("glm4.5", "GLM-4.5-Air"),
        ("glm4.7", "GLM-4.7-Flash"),
        ("nemotron3", "Nemotron-3-Nano-30B-A3B nemotron-3-super:120b"),
        ("jamba1.5", "AI21-Jamba-1.5-Mini AI21-Jamba-1.5-Large"),
        ("hermes2", "Hermes-2-Pro-Mistral-7B"),
    ],
)
def test_sizes_and_grades_belong_to_their_generation(generation: str, names: str) -> None:
    assert [name for name in names.split() if generation not in parse_name(name).names] == []


@pytest.mark.parametrize(
    ("generation", "names"),
    [
        ("qwen3", "qwen3-coder:30b qwen3-vl:8b Qwen3-Embedding-0.6B Qwen3-Reranker-0.6B"),
        ("qwen2.5", "Qwen2.5-Coder-7B-Instruct Qwen2.5-Math-7B-Instruct qwen2.5vl:7b"),
        ("llama3.2", "llama3.2-vision:11b Llama-3.2-11B-Vision-Instruct"),
        ("llama3.1", "Llama-3.1-Nemotron-70B-Instruct-HF Hermes-3-Llama-3.1-8B"),
        ("llama", "Llama-3.1-Tulu-3-8B tinyllama:1.1b nous-hermes-llama2-13b"),
        ("qwen", "DeepSeek-R1-Distill-Qwen-7B deepseek-r1:7b-qwen-distill-q4_K_M"),
        ("mistral", "e5-mistral-7b-instruct dolphin-mistral:7b"),
    ],
)
def test_specialist_does_not_claim_the_plain_name(generation: str, names: str) -> None:
    assert [name for name in names.split() if generation in parse_name(name).names] == []


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("", "model"),
        ("/", "model"),
        ("...", "model"),
        ("Q4_K_M", "model"),
        (".gguf", "model"),
        ("gguf", "model"),
        ("latest", "model"),
        ("-:-", "model"),
        ("a/b/", "b"),
        ("7b", "7b"),
        ("通义千问", "model"),
        ("通义-7B", "7b"),
        ("Modèle 7B", "mod-le-7b mod-le mod"),
        ("all", "all"),
        ("all:7b", "all-7b all"),
        ("gpt-20b", "gpt-20b gpt"),
        ("chat", "chat"),
        ("instruct-7b", "instruct-7b instruct"),
        (":8b", "model-8b model"),
        ("--", "model"),
        ("v", "v"),
    ],
)
def test_odd_names(name: str, names: str) -> None:
    assert " ".join(parse_name(name).names) == names


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen3-8B", 8_000_000_000),
        ("Qwen3-0.6B", 600_000_000),
        ("smollm2:135m", 135_000_000),
        ("mixtral-8x7b", 56_000_000_000),
        ("gemma3n:e4b", 4_000_000_000),
        ("Qwen3-30B-A3B", 30_000_000_000),
        ("Qwen1.5-MoE-A2.7B-Chat", None),
        ("kimi-k2:1t-cloud", 1_000_000_000_000),
        ("solar-10.7b", 10_700_000_000),
        ("phi-4", None),
        ("Phi-3-mini-4k-instruct", None),
        ("LongChat-32k-v1", None),
        ("qwen3:latest", None),
        # As headers tell sizes.
        ("model-8x7B", 56_000_000_000),
        ("model-30B-A3B", 30_000_000_000),
        ("model-", None),
    ],
)
def test_parameters_in_a_name(name: str, parameters: int | None) -> None:
    assert parse_name(name).parameters == parameters


@pytest.mark.parametrize(
    ("names", "thinks"),
    [
        ("deepseek-r1:7b DeepSeek-R1-Distill-Qwen-7B QwQ-32B-Q4_K_M Qwen3-4B-Thinking-2507", True),
        (
            "Magistral-Small-2506 phi4-mini-reasoning GLM-Z1-9B-0414 Olmo-3-7B-Think r1-1776:70b",
            True,
        ),
        ("Qwen3-4B-Instruct-2507 llama3.2:3b mistral-small qwen2.5:7b command-r", False),
    ],
)
def test_names_of_models_that_think(names: str, thinks: bool) -> None:
    assert [name for name in names.split() if parse_name(name).thinks is not thinks] == []


@pytest.mark.parametrize(
    ("projector", "model"),
    [
        ("mmproj-gemma-3-4b-it-f16", "gemma-3-4b-it-Q4_K_M"),
        ("Qwen2.5-VL-7B-Instruct-mmproj-f16", "Qwen2.5-VL-7B-Instruct-Q8_0"),
        ("mmproj-Qwen3VL-8B-Instruct-Q8_0", "Qwen3VL-8B-Instruct-Q4_K_M"),
        ("Ministral-3-3B-Instruct-2512-BF16-mmproj", "Ministral-3-3B-Instruct-2512-Q4_K_M"),
    ],
)
def test_projector_has_the_words_of_its_model(projector: str, model: str) -> None:
    assert projected_words(projector) == parse_name(model).words


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("/models/Qwen3-8B", ["models", "Qwen3-8B"]),
        ("/models/Qwen3-8B/", ["models", "Qwen3-8B"]),
        ("./Qwen3-8B", [".", "Qwen3-8B"]),
        ("~/Qwen3-8B", ["~", "Qwen3-8B"]),
        ("models/7B/x.gguf", ["models", "7B", "x.gguf"]),
        ("C:\\models\\x.gguf", ["C:", "models", "x.gguf"]),
        ("D:/models/x", ["D:", "models", "x"]),
        ("models\\x", ["models", "x"]),
        ("/hf/hub/models--a--b/snapshots/0a1b", ["a", "b"]),
        ("/hf/hub/models--gpt2/snapshots/0a1b/", ["gpt2"]),
        ("/models--a--b/snapshots/0a/x", ["models--a--b", "snapshots", "0a", "x"]),
        # Names that are no paths.
        ("Qwen/Qwen3-8B", []),
        ("qwen3:8b", []),
        ("hf.co/a/b:Q4_K_M", []),
        ("a/b-GGUF:b-Q4_K_M.gguf", []),
        ("x.gguf", []),
        ("/", []),
    ],
)
def test_names_that_are_paths(name: str, parts: list[str]) -> None:
    assert path_parts(name) == parts


@pytest.mark.parametrize(
    ("names", "kept", "short"),
    [
        (["/a/x", "/b/y"], {}, ["x", "y"]),
        (["/a/x", "/b/x"], {}, ["a/x", "b/x"]),
        (["/a/x", "/x", "x"], {}, ["a/x", "/x", "x"]),
        (["/a/x", "/a/x/", "D:\\x"], {}, ["/a/x", "/a/x/", "D:/x"]),
        (["a/x", "x"], {}, ["a/x", "x"]),
        (["/a/x", "/b/x"], {"/a/x": "x"}, ["x", "b/x"]),
        (["/b/x", "/a/x"], {"/a/x": "x", "/c/x": "c/x"}, ["b/x", "x"]),
        (["/a/x"], {"/a/x": "a/x"}, ["a/x"]),
        (["/x"], {"/x": "/x"}, ["/x"]),
        (["/x", "/a/x"], {"/a/x": "x"}, ["/x", "x"]),
        # There is no other name for what is called just that.
        (["/a/x", "x"], {"/a/x": "x"}, ["a/x", "x"]),
        (["x", "y"], {"x": "x"}, ["x", "y"]),
    ],
)
def test_short_names_are_unique_and_stay(
    names: list[str], kept: dict[str, str], short: list[str]
) -> None:
    assert [*short_names(names, kept).values()] == short


@pytest.mark.parametrize(
    "path",
    ["C:\\models\\Qwen3-8B-Q4_K_M.gguf", "/hub/models--Qwen--Qwen3-8B/snapshots/0a1b2c"],
)
def test_name_of_a_path_is_its_last_part(path: str) -> None:
    assert parse_name(path).names == parse_name("Qwen3-8B").names
