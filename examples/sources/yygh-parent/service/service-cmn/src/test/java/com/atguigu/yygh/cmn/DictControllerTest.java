package com.atguigu.yygh.cmn;

import static org.hamcrest.Matchers.hasItem;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.header;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.jsonPath;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.autoconfigure.web.servlet.AutoConfigureMockMvc;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.test.web.servlet.MockMvc;

@SpringBootTest(properties = "TAG=SNAPSHOT-7")
@AutoConfigureMockMvc
class DictControllerTest {

    @Autowired
    private MockMvc http;

    @Test
    void explainsACode() throws Exception {
        http.perform(get("/api/cmn/dicts/HosLevel/1"))
                .andExpect(status().isOk())
                .andExpect(jsonPath("$.name").value("三级甲等"));
    }

    @Test
    void listsItsCodes() throws Exception {
        http.perform(get("/api/cmn/dicts")).andExpect(jsonPath("$", hasItem("HosLevel")));
    }

    @Test
    void saysWhatDoesNotExist() throws Exception {
        http.perform(get("/api/cmn/dicts/NoSuchCode"))
                .andExpect(status().isNotFound())
                .andExpect(jsonPath("$.detail").value("字典不存在: NoSuchCode"));
    }

    @Test
    void namesItsReleaseInEveryResponse() throws Exception {
        http.perform(get("/actuator/health/readiness"))
                .andExpect(status().isOk())
                .andExpect(header().string("X-Service", "service-cmn"))
                .andExpect(header().string("X-Version", "SNAPSHOT-7"));
    }
}
